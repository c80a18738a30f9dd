"""What Adam's options cost in quality: `python benchmarks/adam_options.py --cache DIR`, which goes
on where it was stopped.

At each shape and seed one run for each option, on the same batches, and their held-out FVU in
inference form. An option's price is the relative difference of its FVU from plain Adam's of the
same seed: a mean over the seeds with Student's interval. The cache is the demo's (`saelab demo`).

In the first shape a feature has a quarter of a pair a step, as one of a million features has in
batches of 4,096 with k = 64, and most rows wait. The second is the demo's at a quarter of its
batch: four pairs a feature and step.

Said on the bundled model, three seeds: bfloat16 moments change the FVU by +0.1% [-0.7, +0.9] and
+0.2% [-2.3, +2.7]: no price was found. Waiting changes it by -2.4% [-4.2, -0.6] and -0.3% [-3.1,
+2.5], and 28 and 22 of 100 features fewer never fire on the held-out tokens: what plain Adam's
momentum moves a feature by while it has no gradient seems to be what kills it. Tried on one seed:
moving a row by that momentum when its next gradient comes is worse (FVU +20%).
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import training
from apps.cli import bench
from saelab import SAE
from saelab.activations import Cache
from saelab.statistics import over_seeds
from training.reproduce.measure import quality, tokens

RESULTS = Path(__file__).parent / "results" / "adam_options_epyc_zen4_2cores.json"
HELD_OUT = 30_000


class Shape(NamedTuple):
    """A run's size."""

    features: int
    k: int
    batch: int
    steps: int


SHAPES = (Shape(4096, 4, 256, 500), Shape(4096, 32, 512, 300))
SEEDS = (0, 1, 2)
PLAIN = "plain"
OPTIONS: dict[str, dict[str, Any]] = {
    PLAIN: {"lazy": False},
    "moments=bfloat16": {"moments": "bfloat16", "lazy": False},
    "lazy": {},
}


def asked() -> list[dict[str, Any]]:
    """Every run: shape, option, seed."""
    return [
        {**shape._asdict(), "option": option, "seed": seed}
        for seed in SEEDS
        for shape in SHAPES
        for option in OPTIONS
    ]


def measured(run: dict[str, Any], cache: str) -> dict[str, Any]:
    """Train it; held-out quality."""
    hook = Cache(cache).hooks[0]
    with tempfile.TemporaryDirectory(dir=Path(cache).parent) as folder:
        config = training.Config(
            cache=cache,
            hook=hook,
            out=f"{folder}/run",
            features=run["features"],
            k=run["k"],
            encoder="unit",
            batch=run["batch"],
            tokens=run["steps"] * run["batch"],
            checkpoint_every=run["steps"],
            seed=run["seed"],
            order_seed=run["seed"],
            **OPTIONS[run["option"]],
        )
        training.train(config)
        scored = quality(SAE.load(config.out), tokens(cache, hook, "held_out", HELD_OUT))
    numbers = {name: round(value, 6) for name, value in scored._asdict().items()}
    return {**run, **numbers}


def prices(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Per shape and option: the relative difference of its FVU from plain Adam's of the same seed,
    with an interval over seeds, and the share of dead features of both."""
    made = []
    for shape in SHAPES:
        here = [row for row in rows if all(row[n] == v for n, v in shape._asdict().items())]
        plain = {row["seed"]: row for row in here if row["option"] == PLAIN}
        for option in list(OPTIONS)[1:]:
            mine = {row["seed"]: row for row in here if row["option"] == option}
            both = sorted(set(mine) & set(plain))
            if not both:
                continue
            relative = over_seeds([mine[s]["fvu"] / plain[s]["fvu"] - 1 for s in both])
            dead = over_seeds([mine[s]["dead"] - plain[s]["dead"] for s in both])
            names = {"fvu, relative": relative, "dead features, difference": dead}
            estimates = {
                name: {"value": e.value, "low": e.low, "high": e.high} for name, e in names.items()
            }
            made.append({**shape._asdict(), "option": option, "seeds": len(both), **estimates})
    return made


def main() -> None:
    """Train what the results lack, at most `--most` runs of it; write and print the prices."""
    parser = argparse.ArgumentParser(description="What Adam's options cost in quality.")
    parser.add_argument(
        "--cache", help="the demo's cache; without it the results are only compared"
    )
    parser.add_argument("--most", type=int, help="runs to train before it stops")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    rows = json.loads(args.out.read_text())["rows"] if args.out.exists() else []
    held = [[row[name] for name in asked()[0]] for row in rows]
    missing = [run for run in asked() if list(run.values()) not in held]
    for run in missing[: args.most] if args.cache else []:
        rows.append(measured(run, args.cache))
        print(rows[-1], flush=True)
        result = {
            "schema": "saelab/adam-options/1",
            "machine": bench.explained(),
            "dtype": "float32",
            "prices": prices(rows),
            "rows": rows,
        }
        args.out.write_text(json.dumps(result, indent=1) + "\n")
    for price in prices(rows):
        print(price)


if __name__ == "__main__":
    main()
