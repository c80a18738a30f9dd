"""The main job on the bundled model: capture, train two seeds, evaluate, index, compare the seeds,
open the browser.

    saelab demo
    saelab demo --out runs/mine --no-browse
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated

from saelab import Config
from saelab.door import beside
from saelab.errors import UsageError
from saelab.ranges import Count, Port
from saelab.runs import RunFolder

from .common import OnDevice, unsaid

HOOK = "blocks.1.hook_resid_post"
TOKENS = 1_150_000
HELD_OUT = 50_688  # of TOKENS: what the evaluation reads


@dataclass(frozen=True)
class Args(OnDevice):
    """Options of `saelab demo`."""

    out: Path = Path("runs/demo")
    """run folder; the cache and the second seed's run lie beside it"""
    no_browse: bool = False
    """stop before the browser"""
    port: Annotated[Port | None, unsaid] = None
    """port of the browser (default: a free one)"""
    tokens: Count = TOKENS
    """positions to capture; training takes the demo recipe's tokens in proportion"""


def run(args: Args) -> int:
    """Do it all in one process; every stage prints what its own verb prints."""
    from . import browse, capture, compare, compare_text, index
    from . import eval as evaluation

    cache, second = (args.out.with_name(f"{args.out.name}-{part}") for part in ("cache", "seed1"))
    configs = _configs(args, cache, second)
    for config in configs:
        beside("training.checks").check(config)
        _check_place(Path(config.out))
    seconds: dict[str, float] = {}
    seed, device = args.seed, args.device
    with _stage("capture", f"{args.tokens:,} tokens of the standard library at {HOOK}", seconds):
        held_out = HELD_OUT * args.tokens // TOKENS
        wanted = capture.Args(
            text="stdlib",
            hook=(HOOK,),
            tokens=args.tokens,
            held_out=held_out,
            out=cache,
            device=device,
        )
        capture.run(wanted)
    with _stage("train", "two seeds in one pass", seconds):
        _train(configs)
    with _stage("eval", "held-out documents", seconds):
        evaluation.run(evaluation.Args(runs=(args.out,), tokens=50_000, seed=seed, device=device))
    with _stage(
        "index", "what every feature fires on, and whether the other seed found it", seconds
    ):
        for run_, other, n_tokens in ((args.out, second, 500_000), (second, args.out, 200_000)):
            others = {"compare": (other,), "tokens": n_tokens}
            index.run(index.Args(run=run_, seed=seed, device=device, **others))
    with _stage("compare", "what the two seeds share", seconds):
        two = {"runs": (args.out, second), "tokens": 15_000, "dead": False}
        pairs, _ = compare.compared(compare.Args(seed=seed, device=device, **two))
        print(f"A {args.out}, B {second}\n{compare_text.features(pairs[0])}")
    timing = ", ".join(f"{name} {s:.0f} s" for name, s in seconds.items())
    print(f"done in {sum(seconds.values()):.0f} s: {timing}")
    if args.no_browse:
        return 0
    return browse.run(browse.Args(runs=(args.out,), port=args.port)) or 0


def _configs(args: Args, cache: Path, second: Path) -> list[Config]:
    """The demo recipe with the seed and with the next one."""
    recipe = beside("training.recipes").read("demo")
    n_tokens = recipe.tokens * args.tokens // TOKENS
    config = replace(recipe, cache=str(cache), hook=HOOK, tokens=n_tokens, device=args.device)
    return [
        replace(config, out=str(folder), seed=args.seed + i)
        for i, folder in enumerate((args.out, second))
    ]


def _check_place(folder: Path) -> None:
    """Raise UsageError for a run folder whose demo has ended, or that holds other files; one that
    was killed goes on."""
    run = RunFolder(folder)
    if run.features.is_file():
        raise UsageError(
            f"{folder} holds a demo that has ended: `saelab browse {folder}` shows it, another "
            "--out makes another"
        )
    if not run.config.is_file():
        beside("training.folder").refuse_occupied(folder)


def _train(seeds: list[Config]) -> None:
    """Train in one pass, or go on where an earlier demo was killed; print each run's last
    numbers."""
    from .train import summary, train_showing_progress

    train_showing_progress(seeds, resume=True)
    for one in seeds:
        print(summary(one)[1])


@contextmanager
def _stage(name: str, what: str, seconds: dict[str, float]) -> Iterator[None]:
    """Announce a stage and time it."""
    print(f"== {name}: {what}", flush=True)
    started = time.perf_counter()
    yield
    seconds[name] = time.perf_counter() - started
