"""The main job on the bundled model: capture, train two seeds, evaluate, index, open the browser."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from apps.cli.common import Common

HOOK = "blocks.2.hook_resid_post"


@dataclass(frozen=True)
class Args(Common):
    """Options of `saelab demo`."""

    out: Path = Path("runs/demo")
    """run folder; the cache and the second seed's run lie beside it"""
    no_browse: bool = False
    """stop before the browser"""
    port: int | None = None
    """port of the browser (default: a free one)"""
    tokens: int = 2_200_000
    """tokens to capture; about 5% of them are held out"""


@contextmanager
def _stage(name: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a stage on stderr and time it."""
    print(f"== {name}", file=sys.stderr, flush=True)
    started = time.perf_counter()
    yield
    seconds[name] = round(time.perf_counter() - started, 1)


def run(args: Args) -> int:
    """Do it all in one process; every stage prints what its own verb prints."""
    from apps.cli import browse, capture, index
    from apps.cli import eval as evaluation

    cache, second = args.out.with_name(args.out.name + "-cache"), args.out.with_name(args.out.name + "-seed1")
    seconds: dict[str, float] = {}
    with _stage(f"capture: {args.tokens:,} tokens of the standard library at {HOOK}", seconds):
        capture.run(capture.Args("bundled", "stdlib", (HOOK,), args.tokens, cache))
    with _stage("train: two seeds in one pass", seconds):
        train(args, cache, second)
    with _stage("eval", seconds):
        evaluation.run(evaluation.Args(run=args.out, tokens=50_000, seed=args.seed))
    with _stage("index", seconds):
        index.run(index.Args(run=args.out, compare=(second,), seed=args.seed))
    timing = ", ".join(f"{name.split(':')[0]} {s:.0f} s" for name, s in seconds.items())
    print(f"done in {sum(seconds.values()):.0f} s ({timing})", file=sys.stderr)
    if not args.no_browse:
        return browse.run(browse.Args(runs=(args.out,), port=args.port)) or 0
    print(f"browse it: saelab browse {args.out}")
    return 0


def train(args: Args, cache: Path, second: Path) -> None:
    """Train the demo recipe with the seed and with the next one, in one pass."""
    from apps.cli.train import train_showing_progress
    from training import recipes

    config = replace(recipes.read("demo"), cache=str(cache), hook=HOOK)
    seeds = [replace(config, out=str(folder), seed=args.seed + i) for i, folder in enumerate((args.out, second))]
    train_showing_progress(seeds)
