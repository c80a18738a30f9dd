"""How far a verb is: a bar on a terminal, elsewhere (nohup, a batch job) a plain line every 30
seconds, so that a log tells a working process from a hanging one.

    with telling("capture"):
        with bar(2_000_000, "token") as shown:
            shown.to(16_384)
"""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from saelab import ranks

EVERY = 30.0  # seconds


class Bar:
    """How many of how many units are done."""

    def __init__(
        self, total: int, unit: str, what: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        from tqdm import tqdm

        self.total, self.unit, self.what, self.clock = total, unit, what, clock
        self.n, self.first, self.since = 0, 0, clock()
        options: dict[str, Any] = {"unit": unit, "unit_scale": True, "desc": what or None}
        # Where stderr is no terminal, tqdm shows nothing.
        hidden = True if ranks.rank() else None
        self.tqdm = tqdm(total=total, file=sys.stderr, disable=hidden, **options)

    def to(self, n: int, **numbers: str) -> None:
        """Say that `n` units are done; numbers: what to show beside them on a terminal."""
        if not self.n:
            # What an earlier process has done says nothing about this one's rate.
            self.first, self.since = n, self.clock()
        self.n = n
        if not self.tqdm.disable:
            self.tqdm.set_postfix(numbers, refresh=False)
            self.tqdm.update(n - self.tqdm.n)

    def line(self) -> str:
        """How far it is in words, with the rate and the time left."""
        units = f"{self.unit}s" if self.unit else "done"
        start = f"{self.what}: " if self.what else ""
        if self.n >= self.total:
            return f"{start}{self.n:,} {units}, finishing"
        far = f"{start}{self.n:,} of {self.total:,} {units} ({self.n / self.total:.0%})"
        elapsed = self.clock() - self.since
        if self.n == self.first or elapsed <= 0:
            return far
        rate = (self.n - self.first) / elapsed
        pace = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
        return f"{far}, {pace}/s, {duration((self.total - self.n) / rate)} left"


def duration(seconds: float) -> str:
    """45 s, 3 min 20 s, 2 h 5 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60} h {minutes % 60} min"


class Teller:
    """Says every `every` seconds how far the bar or the stage of this moment is."""

    def __init__(
        self, verb: str, every: float = EVERY, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.verb, self.every, self.clock = verb, every, clock
        self.bar: Bar | None = None
        self.stage = ""
        self.started = clock()
        self.stopped = threading.Event()

    def run(self) -> None:
        """Tell until stopped."""
        while not self.stopped.wait(self.every):
            print(f"saelab {self.verb}: {self.line()}", file=sys.stderr, flush=True)

    def line(self) -> str:
        """What is told now."""
        if self.bar is not None:
            return self.bar.line()
        return f"{self.stage or 'at work'}, {duration(self.clock() - self.started)} since the start"


_teller: Teller | None = None


@contextmanager
def telling(verb: str, every: float = EVERY) -> Iterator[None]:
    """Within the block, what `bar` and `stage` say goes to stderr as plain lines, where that is no
    terminal. Of several ranks the first one tells."""
    global _teller
    if sys.stderr.isatty() or ranks.rank():
        yield
        return
    _teller = teller = Teller(verb, every)
    thread = threading.Thread(target=teller.run, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        teller.stopped.set()
        thread.join()
        _teller = None


def silence() -> None:
    """Tell nothing more: a server has no end to tell of."""
    if _teller is not None:
        _teller.stopped.set()


def stage(what: str) -> None:
    """Say what is done from now on, where it cannot be counted."""
    if _teller is not None:
        _teller.stage = what


@contextmanager
def bar(total: int, unit: str, what: str = "") -> Iterator[Bar]:
    """A bar for the length of the block."""
    shown = Bar(total, unit, what)
    if _teller is not None:
        _teller.bar = shown
    try:
        yield shown
    finally:
        shown.tqdm.close()
        if _teller is not None:
            _teller.bar = None
