"""File events: openings for writing, renames, fsyncs, cuts and unlinkings, counted or died at."""

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.faults.verbs import Verb, ended

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = ("os.rename", "os.remove", "os.truncate", "sqlite3.connect")


def on_file_events(act: Callable[[], object], folder: Path) -> None:
    """Let `act` be called before every opening for writing, renaming, fsync, cut and unlinking
    below a folder, in this process and for ever."""

    def inside(path: Any) -> bool:
        if not isinstance(path, str | os.PathLike):
            return False
        path = Path(path)
        return not path.is_absolute() or path.is_relative_to(folder)

    def hook(event: str, args: tuple) -> None:
        writes = event == "open" and (args[2] or 0) & WRITES
        if (writes or event in EVENTS) and inside(args[0]):
            act()

    fsync = os.fsync

    def counted(descriptor: int) -> None:
        act()
        fsync(descriptor)

    os.fsync = counted
    sys.addaudithook(hook)


def kill_at(number: int) -> Callable[[Path], None]:
    """What kills its own process at the file event of that number, from 1."""

    def before(folder: Path) -> None:
        left = [number]

        def count() -> None:
            left[0] -= 1
            if not left[0]:
                os.kill(os.getpid(), signal.SIGKILL)

        on_file_events(count, folder)

    return before


def n_events(verb: Verb, folder: Path) -> int:
    """How many file events the verb has, run to its end in a fork."""
    counts = folder.with_suffix(".events")

    def before(_: Path) -> None:
        file = os.open(counts, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        on_file_events(lambda: os.write(file, b"."), folder)

    ended(verb, folder, before)
    return counts.stat().st_size
