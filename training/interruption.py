"""Ctrl-C and SIGTERM, as schedulers send it, wait for the end of a step."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


@contextlib.contextmanager
def deferred() -> Iterator[Callable[[], bool]]:
    """Within the block the first of these signals only makes the function that it yields true; a
    second one acts as it would outside. Outside of the main thread, which alone may say so, nothing
    changes.

    >>> with deferred() as interrupted:
    ...     while not interrupted():
    ...         step()
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    before: dict[signal.Signals, Any] = {}
    noted: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _: object) -> None:
        noted.append(number)
        restore()

    for number in SIGNALS:
        before[number] = signal.signal(number, note)
    try:
        yield lambda: bool(noted)
    finally:
        restore()
