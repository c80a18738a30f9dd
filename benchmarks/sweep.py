"""What a pass over one cache costs several runs, beside the sum of their bare steps: `python
benchmarks/sweep.py --cache DIR`.

A bare step is choosing, decoding and the update alone, of one run, on batches that are already in
memory and scaled. The pass adds reading and shuffling the cache, scaling, AuxK, counters, records
and checkpoints. Passes and bare steps take turns.
"""

import argparse
import itertools
import json
import platform
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch

import training
from apps.cli import bench
from apps.cli.memory import keep_freed_memory
from saelab.activations import Cache
from training import loop
from training.run import Run
from training.updates import Batch

RESULTS = Path(__file__).parent / "results"


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="A pass of several runs beside the sum of their bare steps."
    )
    parser.add_argument("--cache", required=True)
    parser.add_argument("--hook")
    parser.add_argument("--k", type=int, nargs="+", default=[8, 16, 32, 64])
    parser.add_argument("--features", type=int, nargs="+", default=[2048, 4096])
    parser.add_argument("--batch", type=int, default=2048)
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument(
        "--out", type=Path, help=f"JSON file (default: {RESULTS.name}/<machine>.json)"
    )
    return parser.parse_args()


def members(args: argparse.Namespace, folder: Path) -> list[training.Config]:
    """One run for each k and F."""
    base = training.Config(
        cache=args.cache, hook=args.hook, batch=args.batch, tokens=args.steps * args.batch, lr=0.002
    )
    shapes = [(k, n) for n in args.features for k in args.k]
    return [replace(base, k=k, features=n, out=str(folder / f"{k}-{n}")) for k, n in shapes]


def of_the_pass(configs: list[training.Config]) -> list[float]:
    """Seconds between the ends of a pass's steps, the first quarter left out."""
    ends: list[float] = []
    finish, loop._finish = loop._finish, lambda *_: None
    try:
        training.train(configs, progress=lambda *_: ends.append(time.perf_counter()))
    finally:
        loop._finish = finish
    return [b - a for a, b in itertools.pairwise(ends)][len(ends) // 4 :]


def bare_steps(config: training.Config, n_steps: int) -> list[float]:
    """Seconds of a run's bare steps, the first quarter left out."""
    stream = Cache(config.cache).batches(config.hook or Cache(config.cache).hooks[0], config.batch)
    batches = [next(stream) for _ in range(n_steps)]
    run = Run(config, torch.cat(batches), torch.cat(batches))
    seconds = []
    for x_BD in batches:
        scaled, rate = Batch(*2 * [x_BD / run.scale.input]), run.rate()
        started = time.perf_counter()
        run.optimiser.forward(scaled, run.scale.variance)
        run.optimiser.update(rate, run.n_done + 1, [None])
        seconds.append(time.perf_counter() - started)
        run.n_done += 1
    return seconds[n_steps // 4 :]


def main() -> None:
    """Measure twice in turn, print, write the JSON."""
    args = arguments()
    keep_freed_memory()
    passes, steps = [], []
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(2):
            configs = members(args, Path(folder) / str(turn))
            passes.append(statistics.median(of_the_pass(configs)))
            steps.append(
                sum(statistics.median(bare_steps(config, args.steps)) for config in configs)
            )
    one, total = min(passes), min(steps)
    print(
        f"{len(configs)} runs: {1e3 * one:.0f} ms a step of the pass, {1e3 * total:.0f} ms their "
        f"bare steps: {one / total:.2f}x"
    )
    shape = {name: getattr(args, name) for name in ("k", "features", "batch", "steps")}
    result = {
        "schema": "saelab/bench/1",
        "machine": bench.explained(),
        "shape": shape,
        "dtype": "float32",
        "ms": {"pass": 1e3 * one, "bare": 1e3 * total},
        "ratio": one / total,
    }
    out = args.out or RESULTS / f"sweep_{platform.node()}.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
