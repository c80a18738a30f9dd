"""Running a piece of work in a process of its own and killing it without warning."""

import os
import signal
import time
import warnings
from collections.abc import Callable


def _fork(work: Callable[[Callable[[int], None]], object]) -> tuple[int, int]:
    """Run `work(progress)` in a fork; its process id and a pipe that receives one byte per progress
    call."""
    read, write = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore", DeprecationWarning
        )  # Python 3.12 warns of fork where threads run; the child starts none
        child = os.fork()
    if not child:
        os.close(read)
        try:
            work(lambda _: os.write(write, b".") and None)
        finally:
            os._exit(0)
    os.close(write)
    return child, read


def run(work: Callable[[], object]) -> None:
    """Fork and run `work()` to its end there: what it does to its process dies with it."""
    child, read = _fork(lambda _: work())
    os.close(read)
    os.waitpid(child, 0)


def run_and_kill(work: Callable[[Callable[[int], None]], object], after: int, delay: float) -> int:
    """Fork, run `work(progress)`, and SIGKILL it `delay` seconds after its `after`-th progress
    call.

    Returns the number of progress calls seen. The child inherits loaded modules, so that a kill
    costs no second import.
    """
    child, read = _fork(work)
    seen = 0
    while seen < after and os.read(read, 1):
        seen += 1
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    return seen
