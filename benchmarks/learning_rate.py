"""The best learning rate over run length and width, and what the default comes to: `python
benchmarks/learning_rate.py --caches DIR`, which goes on where it was stopped.

`learning_rate.yaml` lists the points (cache, hook, sparsifier, F, steps, batch) with the rates and
seeds to train at each, and how to capture the caches into DIR; a rate of null is the default. Runs
of one cache, length and batch share passes. After each pass their held-out FVU in inference form is
appended to the results; without `--caches` they are only compared: the best rate of the search with
the default, their ratio paired by seed, Student's intervals from three seeds on.

On the demo's activations the default is within 1.6% of the search's best FVU, but for F = 16384
after 900 steps (4.7%) and BatchTopK there at 4096 (2.4%): a higher rate lowers the FVU of long and
wide runs further, and leaves up to twice as many features unseen. The best rate of short runs
hardly depends on F. Half an octave off costs 1 to 5%. For 8 and 64 pairs it is the best that was
tried, on inputs of 1024 numbers within 1.3%, of 64 numbers with 8 pairs within 1.3%. With half as
many pairs as numbers (D = 64, k = 32) yet higher rates are better, by 9 and 13% in two of four
points. On the scenes' 128 numbers, where half of the features fire on nothing, it is from 3% better
to 16% worse, and neighbouring rates differ by as much as far ones.

`learning_rate_unit_dense.jsonl` has what was measured while encoder rows started at norm 1 and
features moved in every step: the best rate was some 0.8 times today's, the FVU 2 to 29% higher, and
many times as many features died. Tried for the demo then, to no use: batches of 512 (FVU .0481
after 1,200 steps) and decay over 0.8 of the steps (.0525 after 700). Warm-up over 0.3 of the steps
cost 0.5% of the FVU.

`ms` is a step's time on two cores, other work beside it: of a Xeon with AMX on the demo's
activations and 32 pairs, else of an AMD EPYC (Zen 3).
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import yaml

import training
from saelab import SAE
from saelab.statistics import over_seeds
from training import rate
from training.reproduce.measure import quality, tokens

HERE = Path(__file__).parent
POINT = ("cache", "hook", "sparsify", "features", "k", "steps", "batch")
KEYS = (*POINT, "lr", "seed")
PASS = 8  # runs trained in one pass over their cache
HELD_OUT = 30_000


def asked(plan: dict) -> Iterator[dict]:
    """The runs of a plan, one dict of KEYS each."""
    for point in plan["points"]:
        whole = {**plan["every"], **point}
        for lr in whole["rates"]:
            for seed in whole["seeds"]:
                yield {name: {**whole, "lr": lr, "seed": seed}[name] for name in KEYS}


def config(run: dict, caches: Path, out: Path) -> training.Config:
    """The run's Config."""
    fields = {name: run[name] for name in KEYS if name != "steps"}
    made = training.Config(**fields, out=str(out), checkpoint_every=run["steps"], log_every=5)
    n_tokens, cache = run["steps"] * run["batch"], str(caches / run["cache"])
    return replace(made, tokens=n_tokens, cache=cache, calibration=50_000)


def passes(runs: list[dict]) -> list[list[dict]]:
    """The runs in groups that can share a pass, the shortest first."""

    def shared(run: dict) -> tuple:
        return run["steps"], run["batch"], run["cache"]

    groups = [list(group) for _, group in groupby(sorted(runs, key=shared), shared)]
    return [group[i : i + PASS] for group in groups for i in range(0, len(group), PASS)]


def measured(group: list[dict], caches: Path) -> Iterator[dict]:
    """Train the group in one pass; each run with its held-out quality and milliseconds per step."""
    with tempfile.TemporaryDirectory(dir=caches) as folder:
        configs = [config(run, caches, Path(folder) / str(i)) for i, run in enumerate(group)]
        started = time.perf_counter()
        training.train(configs)
        ms = 1e3 * (time.perf_counter() - started) / configs[0].n_steps / len(configs)
        for run, c in zip(group, configs, strict=True):
            assert c.hook is not None
            scored = quality(SAE.load(c.out), tokens(c.cache, c.hook, "held_out", HELD_OUT))
            rows = rate.rows(Path(c.out))
            numbers = {"rate": max(row["lr"] for row in rows), **scored._asdict(), "ms": ms,
                       "fall": rate.fall(rows, c.n_steps, c.decay)}  # fmt: skip
            yield run | {name: round(value, 6) for name, value in numbers.items()}


def table(rows: list[dict]) -> Iterator[str]:
    """A line per point at which the default was trained: the best rate of the search by its mean
    FVU, the default's, and their ratio on the seeds that both have."""
    point = {
        name: [row for row in rows if of(row) == name] for name in dict.fromkeys(map(of, rows))
    }
    for name, here in point.items():
        by_rate = {
            lr: {r["seed"]: r for r in here if r["lr"] == lr} for lr in {r["lr"] for r in here}
        }
        default = by_rate.pop(None, None)
        if default is None or not by_rate:
            continue
        best = min(by_rate, key=lambda lr: by_rate[lr][0]["fvu"])
        both = [
            (default[seed]["fvu"], by_rate[best][seed]["fvu"])
            for seed in default
            if seed in by_rate[best]
        ]
        searched = [row["fvu"] for row in by_rate[best].values()]
        yield (
            f"{' '.join(map(str, name)):75} best {best:.4g}: {stated(searched)}   default "
            f"{default[0]['rate']:.2g}: {stated([row['fvu'] for row in default.values()])}   "
            f"ratio {stated([mine / theirs for mine, theirs in both])}"
        )


def of(row: dict) -> tuple:
    """The point of a row."""
    return tuple(row[name] for name in POINT)


def stated(values: list[float]) -> str:
    """A mean over seeds, with its interval where there are enough."""
    mean = over_seeds(values)
    return f"{mean.value:.4f}" + ("" if mean.low is None else f" [{mean.low:.4f}, {mean.high:.4f}]")


def main() -> None:
    """Train what the results lack; print the table."""
    parser = argparse.ArgumentParser(description="The best learning rate, and the default's.")
    parser.add_argument("--caches", type=Path, help="folder that the plan's caches lie in")
    parser.add_argument("--plan", type=Path, default=HERE / "learning_rate.yaml")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "learning_rate.jsonl")
    args = parser.parse_args()
    args.results.touch()
    rows = [json.loads(line) for line in args.results.read_text().splitlines()]
    held = [[row[name] for name in KEYS] for row in rows]
    missing = [
        run
        for run in asked(yaml.safe_load(args.plan.read_text()))
        if list(run.values()) not in held
    ]
    for group in passes(missing if args.caches else []):
        new = list(measured(group, args.caches))
        with args.results.open("a") as file:
            file.writelines(json.dumps(row) + "\n" for row in new)
        rows += new
    print(*table(rows), sep="\n")


if __name__ == "__main__":
    main()
