"""Our SAEs beside those of other packages, each in an environment of its own, on the same
activations in the same order: equal tokens, batch, width, k, schedule and search over rates.

    python benchmarks/quality.py --cache DIR --model bundled --peer sae_lens=PYTHON \\
        --peer dictionary_learning=PYTHON --peer sparsify=PYTHON
    python benchmarks/quality.py  # the table of the committed rows

Every SAE is trained by its package's own trainer (`trained/`), and what it is worth is measured by
plain dense products (`trained/measured.py`) at exactly k pairs per token on held-out tokens. The
rates of RATES are tried with seed 0, then the search goes outward while the best lies at its edge;
the best is trained with two more seeds, our default rate with three. Of a package FAR behind LOWER
rates are tried too. A row is written as each SAE is done, and what is written is not trained
again. A peer that is not named, or does not run, is said, and the others go on. `ms` is CPU time
per step, on one thread.
"""

import argparse
import json
import math
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from torch import Tensor

from benchmarks.trained import job as jobs
from benchmarks.trained import measured
from benchmarks.trained.job import Job
from benchmarks.trained.worker import Worker, WorkerEnded
from saelab import SAE, models
from saelab.activations import Cache
from saelab.sparsify import Choice, Threshold
from saelab.statistics import over_seeds
from training.reproduce.measure import added_loss, tokens

HERE = Path(__file__).parent
OURS = "ours"
# Rows of ours as it was: an encoder of norm 1, and Adam that moves features without a gradient on.
FORMER = ("ours_fitted_dense", "ours_unit_dense")
VARIANTS = {  # which packages have them
    "topk": (OURS, "sae_lens", "dictionary_learning", "sparsify"),
    "batchtopk": (OURS, "sae_lens", "dictionary_learning"),
    "matryoshka": (OURS, "sae_lens", "dictionary_learning"),
    "jumprelu": (OURS, "sae_lens", "dictionary_learning"),
}
RATES = (0.004, 0.008)
SEEDS = (0, 1, 2)
FAR = 1.25  # times the lowest FVU: so far off that the rate may be at fault
LOWER = (0.002, 0.001)  # rates that are tried of a package so far off
HELD_OUT, TRAINING, SPLICED = 30_000, 100_000, 4_000


def best(rows: list[dict]) -> float:
    """The rate with the lowest FVU of seed 0."""
    of_first = [row for row in rows if row["lr"] is not None and row["seed"] == SEEDS[0]]
    return min(of_first, key=lambda row: row["fvu"])["lr"]


def next_job(
    package: str,
    shape: dict,
    rows: list[dict],
    least: float = math.inf,
    narrow: Sequence[float] = (),
) -> Job | None:
    """What is to be trained next of a package at a point, None at its end. least: the lowest FVU
    that any package reached there. narrow: rates beyond which the search does not go, and without
    our default."""
    done = {(row["lr"], row["seed"]) for row in rows}
    wanted: list[tuple[float | None, int]] = [(lr, SEEDS[0]) for lr in narrow or RATES]
    if len(done) >= len(wanted):
        lr, tried = best(rows), sorted({row["lr"] for row in rows if row["lr"] is not None})
        wanted += [(2 * lr, SEEDS[0])] if not narrow and lr == tried[-1] else []
        wanted += [(lr / 2, SEEDS[0])] if not narrow and lr == tried[0] else []
        lowest = min(row["fvu"] for row in rows)
        far = not narrow and lowest > FAR * least
        wanted += [(slower, SEEDS[0]) for slower in LOWER] if far else []
        wanted += [(lr, seed) for seed in SEEDS]
        own = package == OURS and not narrow
        wanted += [(None, seed) for seed in SEEDS] if own else []
    missing = [one for one in wanted if one not in done]
    return Job(**shape, lr=missing[0][0], seed=missing[0][1]) if missing else None


class Bench:
    """The activations, and what measures an SAE on them."""

    def __init__(self, folder: Path, cache: str, model: str, n_tokens: int, batch: int) -> None:
        self.folder, self.cache = folder, Cache(cache)
        self.model, self.hook = models.load(model), self.cache.hooks[0]
        stream = self.cache.batches(self.hook, batch)
        self.x_ND = torch.cat([next(stream) for _ in range(n_tokens // batch)])
        np.save(folder / "x.npy", self.x_ND.numpy())
        self.held_out_ND = tokens(cache, self.hook, "held_out", HELD_OUT)

    def row(self, worker: Worker, job: Job) -> dict[str, Any]:
        """A worker's SAE of a job and its numbers. Raises WorkerEnded where it fails."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        (place / "job.json").write_text(json.dumps(job._asdict()))
        worker.train(place)
        tensors, said = jobs.result(place)
        form = measured.equal(tensors, self.held_out_ND, job.k, job.variant)
        given = (tensors, self.held_out_ND, self.x_ND[-TRAINING:], form, job.variant)
        numbers = measured.measure(*given)._asdict()
        numbers["ce_recovered"] = self._recovered(tensors, form)
        rounded = {name: round(float(value), 6) for name, value in numbers.items()}
        return {"package": worker.package, **job._asdict(), **rounded, **said}

    def _recovered(self, tensors: dict[str, Tensor], form: measured.Form) -> float:
        """The share of the loss between ablation to zero and the clean model that splicing in
        keeps."""
        weights = {name: tensors[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        if form.levels is None:
            spliced = SAE.of(weights, Choice(form.k))
        else:
            spliced = SAE.of({**weights, "levels": form.levels}, Threshold())
        zeros = {name: torch.zeros_like(tensor) for name, tensor in weights.items()}
        both = [spliced, SAE.of(zeros, Choice(form.k))]
        kept, ablated = added_loss(both, self.cache, self.model, self.hook, SPLICED)
        return 1 - kept / ablated


def rows_of(path: Path) -> list[dict]:
    """The rows written so far."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def at(rows: list[dict], shape: dict, package: str = "") -> list[dict]:
    """The rows at a point, of one package or of all."""
    mine = [row for row in rows if package in ("", row["package"])]
    return [row for row in mine if all(row[name] == value for name, value in shape.items())]


def work(args: argparse.Namespace, pythons: dict[str, str]) -> None:
    """Train and measure what the rows lack, a row at a time."""
    with tempfile.TemporaryDirectory() as folder:
        n_tokens = args.steps * args.batch
        bench = Bench(Path(folder), args.cache, args.model, n_tokens, args.batch)
        for shape in shapes(args):
            for package in VARIANTS[shape["variant"]]:
                if args.packages and package not in args.packages:
                    continue
                if package not in pythons:
                    print(f"{package} is not installed here: --peer {package}=PYTHON")
                    continue
                try:
                    with closing(Worker(package, pythons[package], bench.folder)) as worker:
                        _all_of(bench, worker, shape, args)
                except WorkerEnded as error:
                    print(f"{package} does not run: {error}")


def _all_of(bench: Bench, worker: Worker, shape: dict, args: argparse.Namespace) -> None:
    """Every row of a package at a point."""
    mine = worker.package
    while True:
        rows = rows_of(args.results)
        least = min((row["fvu"] for row in at(rows, shape)), default=math.inf)
        job = next_job(mine, shape, at(rows, shape, mine), least, args.narrow)
        if job is None:
            return
        row = bench.row(worker, job) | {"machine": args.machine}
        with args.results.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


def shapes(args: argparse.Namespace) -> list[dict]:
    """The points: what jobs share but for rate and seed."""
    common = {"features": args.features, "k": args.k, "batch": args.batch, "steps": args.steps}
    return [{"variant": variant, **common} for variant in args.variants]


def stated(values: list[float]) -> str:
    """A mean over seeds, with Student's interval from three on."""
    mean = over_seeds(values)
    interval = "" if mean.low is None else f" [{mean.low:.4f}, {mean.high:.4f}]"
    return f"{mean.value:.4f}{interval}"


def table(rows: list[dict], shape: dict) -> Iterator[str]:
    """A line per package at its best rate, and ours against the best peer, paired by seed."""
    fvu: dict[str, dict[int, float]] = {}
    for package in (*VARIANTS[shape["variant"]], *FORMER):
        mine = at(rows, shape, package)
        for name, lr in _rates(package, mine):
            these = [row for row in mine if row["lr"] == lr]
            fvu[name] = {row["seed"]: row["fvu"] for row in these}
            means = {key: over_seeds([row[key] for row in these]).value for key in SHOWN}
            # The first run of a process compiles what later ones use.
            means["ms"] = min(row["ms"] for row in mine)
            numbers = "  ".join(f"{key} {value:.4g}" for key, value in means.items())
            yield f"{shape['variant']:10} {name:28} FVU {stated([*fvu[name].values()])}  {numbers}"
    peers = {name: by_seed for name, by_seed in fvu.items() if not name.startswith(OURS)}
    if not peers:
        return
    least = min(peers, key=lambda name: over_seeds([*peers[name].values()]).value)
    for name in [name for name in fvu if name.startswith(OURS)]:
        both = [seed for seed in fvu[name] if seed in peers[least]]
        ratios = [fvu[name][seed] / peers[least][seed] for seed in both]
        yield f"{shape['variant']:10} {name} / {least}: {stated(ratios)}"


SHOWN = ("ce_recovered", "dead", "own_l0", "own_fvu")


def _rates(package: str, rows: list[dict]) -> Iterator[tuple[str, float | None]]:
    """What a package's lines are called, with their rates."""
    if not any(row["lr"] is not None for row in rows):
        return
    lr = best(rows)
    yield f"{package} at {lr:g}", lr
    if any(row["lr"] is None for row in rows):
        yield f"{package} at its default", None


def main() -> None:
    """Train what is missing, if a cache is named; print the table."""
    parser = argparse.ArgumentParser(description="Our SAEs beside those of other packages.")
    parser.add_argument("--cache", help="the activations: of its first hook")
    parser.add_argument("--model", default="bundled", help="the cache's model")
    parser.add_argument("--peer", action="append", default=[], metavar="PACKAGE=PYTHON")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=[*VARIANTS])
    for name, value in {"features": 1024, "k": 32, "batch": 1024, "steps": 600}.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    no_further = "search these rates, no further, and leave our default out"
    parser.add_argument("--narrow", nargs="+", type=float, default=[], help=no_further)
    parser.add_argument("--packages", nargs="+", default=[], help="train these alone")
    parser.add_argument("--machine", default="", help="what the rows say of it")
    parser.add_argument("--results", type=Path, default=HERE / "results" / "quality.jsonl")
    args = parser.parse_args()
    pythons = {OURS: sys.executable, **dict(pair.split("=", 1) for pair in args.peer)}
    if args.cache:
        work(args, pythons)
    rows = rows_of(args.results)
    for shape in shapes(args):
        print(*table(rows, shape), sep="\n")


if __name__ == "__main__":
    main()
