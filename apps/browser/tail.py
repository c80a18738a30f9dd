"""A file of JSON lines that grows: only what is new is read. Imports no Streamlit."""

import threading
from pathlib import Path
from typing import Any

from saelab.files import read_row


class Tail:
    """The rows of a growing file; threads may share it.

    >>> tail = Tail(Path("runs/demo/metrics.jsonl"))
    >>> len(tail.rows()), tail.n_read  # later only the lines since then are read
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.n_read = 0
        """bytes read in all"""
        self._offset, self._inode = 0, 0
        self._rows: list[dict[str, Any]] = []
        self._lock = threading.Lock()

    def rows(self) -> list[dict[str, Any]]:
        """All rows by now; a last line that is half written waits. A file that is another one, or
        shorter than before, is read anew. Raises FailedRun naming a damaged line."""
        with self._lock:
            status = self.path.stat()
            if status.st_ino != self._inode or status.st_size < self._offset:
                self._offset, self._inode, self._rows = 0, status.st_ino, []
            if status.st_size > self._offset:
                self._read()
            return self._rows

    def _read(self) -> None:
        with self.path.open("rb") as file:
            file.seek(self._offset)
            new = file.read()
        *whole, _ = new.split(b"\n")
        for line in whole:
            row = read_row(line, f"line {len(self._rows) + 1} of {self.path}")
            self._rows.append(row)
            self._offset += len(line) + 1
        self.n_read += len(new)
