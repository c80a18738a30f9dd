"""Where a training step's time goes, stage by stage, beside the bare product, in one run:
`python benchmarks/step_stages.py --width 256 --features 4096`.

The step is the trainer's own, from gathering its batch of a cache to its counters. A stage's time
is what its functions take less what the stages inside take; the rest is "other". Shapes: B tokens,
F features, D width.
"""

import argparse
import importlib
import json
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import saelab  # before torch, whose threads it tells how to wait
from apps.cli import bench
from apps.cli.memory import keep_freed_memory

import torch  # isort: skip
from saelab.activations.from_arrays import from_arrays
from saelab.kernels.cpu import probe
from training import benchmark
from training.benchmark import Shape
from training.run import Run

CACHED = 1 << 17  # tokens
CPU = "saelab.kernels.cpu"
STAGES = {
    "round the tokens": ((f"{CPU}.screen.screen", "_round_x"),),
    "round the weights": ((f"{CPU}.screen.screen", "_round_w"),),
    "product": ((f"{CPU}.screen.screen", "_multiply"),),
    "collect candidates": ((f"{CPU}.screen.winners", "collect"),),
    "rescore": ((f"{CPU}.screen.winners", "rescore"), (f"{CPU}.screen.winners", "fill")),
    "decode": ((f"{CPU}.fused", "decode_and_grad"),),
    "sort by feature": ((f"{CPU}.sparse", "sort_by_feature"), (f"{CPU}.sparse", "tokens_of")),
    "update": ((f"{CPU}.fused", "update"),),
    "check": (("saelab.kernels", "check"),),
    "counters": (
        ("training.run", "column_sums"),
        *(("training.run", f"Counters.{name}") for name in ("count", "dead", "dense", "rare")),
    ),
}


class Clock:
    """Milliseconds by stage of the step under way, each without those of the stages inside it."""

    def __init__(self) -> None:
        self.spent: defaultdict[str, float] = defaultdict(float)
        self._inner: list[float] = []

    def timed(self, stage: str, function: Callable) -> Callable:
        """The function, whose time counts as the stage's."""

        def run(*args: Any, **options: Any) -> Any:
            self._inner.append(0.0)
            start = time.perf_counter()
            try:
                return function(*args, **options)
            finally:
                took = 1000 * (time.perf_counter() - start)
                self.spent[stage] += took - self._inner.pop()
                if self._inner:
                    self._inner[-1] += took

        return run

    def watch(self) -> None:
        """Put the clock around every function of STAGES."""
        for stage, places in STAGES.items():
            for module, path in places:
                *outer, name = path.split(".")
                holder = importlib.import_module(module)
                for part in outer:
                    holder = getattr(holder, part)
                setattr(holder, name, self.timed(stage, getattr(holder, name)))


def products(shape: Shape) -> dict[str, Callable[[], Any]]:
    """The bare product into memory that is used again, by dtype."""
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16}
    return {name: benchmark.product_in(dtype, shape) for name, dtype in dtypes.items()}


def batches(shape: Shape, folder: Path) -> Iterator[torch.Tensor]:
    """Shuffled batches of a cache of Gaussian tokens in float16."""
    generator = torch.Generator().manual_seed(0)
    acts_ND = torch.randn(CACHED, shape.width, generator=generator).half()
    cache = saelab.Cache.write(folder / "cache", from_arrays(acts_ND))
    return cache.batches(cache.hooks[0], shape.batch, 0)


def measured(shape: Shape, repeats: int, folder: Path) -> tuple[dict[str, float], dict[str, float]]:
    """Median milliseconds of the products by dtype, and of the step by stage, over `repeats` rounds
    after two that are not counted."""
    clock, bare, stream = Clock(), products(shape), batches(shape, folder)
    first = next(stream)
    config = saelab.Config(
        sparsify="topk",
        k=shape.k,
        features=shape.features,
        batch=shape.batch,
        tokens=10**9,
        lr=benchmark.DENSE_LR,
    )
    run = Run(config, first, first)
    clock.watch()
    rounds: list[dict[str, float]] = []
    for _ in range(repeats + 2):
        row = {name: benchmark.milliseconds(product) for name, product in bare.items()}
        clock.spent.clear()
        start = time.perf_counter()
        x_BD = clock.timed("gather the batch", lambda: next(stream))()
        run.step(x_BD, x_BD)
        total = 1000 * (time.perf_counter() - start)
        other = total - sum(clock.spent.values())
        rounds.append({**row, **clock.spent, "other": other, "whole step": total})
    medians = {
        name: statistics.median(row.get(name, 0.0) for row in rounds[2:]) for name in rounds[-1]
    }
    return {name: medians.pop(name) for name in bare}, medians


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A training step's time by stage.")
    for name, default in Shape()._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--repeats", type=int, default=21)
    parser.add_argument("--screen", choices=("float32", "bfloat16"))
    parser.add_argument("--out", type=Path, help="JSON file to add the result to")
    return parser.parse_args()


def main() -> None:
    """Measure, print the table, write the JSON."""
    args = arguments()
    keep_freed_memory()
    shape = Shape(args.width, args.features, args.k, args.batch)
    forced = probe.screening(getattr(torch, args.screen)) if args.screen else nullcontext()
    with forced, tempfile.TemporaryDirectory() as folder:
        screened = str(probe.screen_dtype()).removeprefix("torch.")
        bare, stages = measured(shape, args.repeats, Path(folder))
    yardstick = min(bare.values())
    table = {
        name: {"ms": round(ms, 2), "products": round(ms / yardstick, 3)}
        for name, ms in stages.items()
    }
    print(f"{shape}; screens in {screened}; bare products: {bare}")
    for name, row in table.items():
        print(f"{name:20} {row['ms']:9.2f} ms {row['products']:8.3f} products")
    result = {
        "schema": "saelab/step-stages/1",
        "machine": bench.explained(),
        "shape": {**shape._asdict(), "repeats": args.repeats, "cached tokens": CACHED},
        "screen": screened,
        "bare products, ms": {name: round(ms, 2) for name, ms in bare.items()},
        "aux": "no feature dead",
        "stages": table,
    }
    if args.out:
        known = json.loads(args.out.read_text(encoding="utf-8")) if args.out.exists() else []
        args.out.write_text(json.dumps([*known, result], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
