"""The main job on the bundled model: capture, train two seeds, evaluate, index, open the browser."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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
