"""What a whole capture costs beside the bare Hugging Face model: `python -m
benchmarks.capture_speed [--model NAME] [--hooks NAME ...]`.

A round is a forward pass over so many tokens to the last hook's layer, which keeps nothing, and a
capture of as many: text read, tokenised and packed, activations converted, their moments, digests
and files included, the loading of the model not. They take turns; the median of the ratios is what
is stated.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.running import bare
from saelab import models
from saelab.activations import Cache
from saelab.activations.from_text import from_text
from saelab.models import running

THREE = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post", "blocks.2.hook_resid_post")


class Spent(NamedTuple):
    """Seconds of one piece of work."""

    wall: float
    processor: float
    """of all threads"""


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="A capture beside bare passes.")
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--text", default="stdlib")
    parser.add_argument("--hooks", nargs="+", default=list(THREE), help="in the model's order")
    parser.add_argument("--dtypes", nargs="+", default=["float16"])
    parser.add_argument("--context", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=65_536)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, help="JSON file")
    return parser.parse_args()


def spent(work: Callable[[], Any]) -> Spent:
    """Of one call."""
    wall, processor = time.perf_counter(), time.process_time()
    work()
    return Spent(time.perf_counter() - wall, time.process_time() - processor)


@torch.no_grad()
def passes(model: models.Model, args: argparse.Namespace, hook: str) -> None:
    """Bare forward passes over so many tokens."""
    size = running.contexts_per_pass(model, args.context)
    left = -(-args.tokens // args.context)
    tokens_CT = torch.randint(1, model.cfg.d_vocab, (size, args.context))
    while left > 0:
        bare(model, tokens_CT[:left], hook)
        left -= size


def capture(model: models.Model, args: argparse.Namespace, hooks: list[str], dtype: str) -> None:
    """A capture into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as folder:
        options = {"context": args.context, "dtype": dtype}
        source = from_text(model, args.text, hooks, args.tokens, **options)
        Cache.write(Path(folder) / "cache", source)


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Medians over rounds in which everything takes its turn."""
    model, last = models.load(args.model), args.hooks[-1]
    works: dict[str, Callable[[], Any]] = {"bare": lambda: passes(model, args, last)}
    for dtype in args.dtypes:
        for hooks in dict.fromkeys(((last,), tuple(args.hooks))):
            works[f"{len(hooks)} hooks, {dtype}"] = lambda hooks=hooks, dtype=dtype: capture(
                model, args, [*hooks], dtype
            )
    rounds = [{name: spent(work) for name, work in works.items()} for _ in range(args.rounds + 1)]
    rounds = rounds[1:]  # the first one warms up

    def beside_bare(name: str, field: str) -> list[float]:
        ratios = [getattr(row["bare"], field) / getattr(row[name], field) for row in rounds]
        middle = statistics.median(ratios)
        return [round(number, 3) for number in (middle, min(ratios), max(ratios))]

    return {
        "machine": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "model": model.located.name if model.located else args.model,
        "hooks": args.hooks,
        "context": args.context,
        "tokens": args.tokens,
        "rounds": args.rounds,
        "microseconds_per_token": {
            name: round(1e6 * statistics.median(row[name].wall for row in rounds) / args.tokens, 2)
            for name in works
        },
        "speed_beside_bare": {
            name: dict(zip(("median", "least", "most"), beside_bare(name, "wall"), strict=True))
            for name in works
            if name != "bare"
        },
        "processor_time_beside_bare": {
            name: beside_bare(name, "processor")[0] for name in works if name != "bare"
        },
    }


def main() -> None:
    """Measure, print, and write where asked."""
    args = arguments()
    result = json.dumps(measure(args), indent=1)
    print(result)
    if args.out:
        args.out.write_text(result + "\n")


if __name__ == "__main__":
    main()
