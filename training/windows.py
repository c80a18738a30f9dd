"""Which contexts of its text a run without a cache has been trained on, and that they are still the
same when it is resumed."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from saelab.activations.live import Window
from saelab.errors import FailedRun
from saelab.files import read_rows
from saelab.runs import RunFolder


class Passed:
    """A row of windows.jsonl in each run's folder for each window of the ring; those that a row
    tells of already are compared with it.

        live.passed = Passed(folders)
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.rows = {}
        for path in (RunFolder(folder).windows for folder in folders):
            self.rows[path] = read_rows(path) if path.exists() else []

    def __call__(self, window: Window) -> None:
        """Raises FailedRun where the text is another one now."""
        row = window.row()
        for path, rows in self.rows.items():
            if window.number < len(rows):
                _check(path, rows[window.number], row)
            else:
                _append(path, row)
                rows.append(row)


def _check(path: Path, held: dict, row: dict) -> None:
    if held != row:
        last = row["first_context"] + row["contexts"] - 1
        raise FailedRun(
            f"the text is not what it was when {path.parent} was begun: its training contexts "
            f"{row['first_context']} to {last} are others than line {row['window'] + 1} of "
            f"{path.name} says; resume with the text as it was"
        )


def _append(path: Path, row: dict) -> None:
    """See a row to the disk, before anything that is trained on it; half a row of a killed process
    gives way."""
    whole = path.read_bytes().rpartition(b"\n") if path.exists() else (b"", b"", b"")
    with path.open("ab") as file:
        file.truncate(len(whole[0]) + len(whole[1]))
        file.write(json.dumps(row).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
