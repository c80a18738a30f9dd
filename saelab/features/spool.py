"""Arrays that grow on disk instead of in memory while a corpus is read."""

import math
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike, NDArray


class Spool:
    """Rows of one dtype and width, appended to a file; then mapped into memory.

    >>> spool = Spool(folder / "tokens", np.int32, (256,))
    >>> spool.append(tokens_CT)
    >>> spool.array()[first_context]
    """

    def __init__(self, path: Path, dtype: DTypeLike, row: tuple[int, ...] = ()) -> None:
        self.path, self.dtype, self.row = path, np.dtype(dtype), row
        self.n_rows = 0
        path.write_bytes(b"")

    def append(self, rows: NDArray) -> None:
        """Add rows [n, *row]."""
        with self.path.open("ab") as file:
            file.write(np.ascontiguousarray(rows, self.dtype).data)
        self.n_rows += len(rows)

    def rows(self, first: int, last: int) -> NDArray:
        """Rows first to last, read into memory."""
        width = self.dtype.itemsize * math.prod(self.row)
        count = (last - first) * math.prod(self.row)
        read = np.fromfile(self.path, self.dtype, count, offset=first * width)
        return read.reshape(last - first, *self.row)

    def array(self) -> NDArray:
        """All rows [n_rows, *row], read from the file as they are touched."""
        shape = (self.n_rows, *self.row)
        if not self.n_rows:  # an empty file cannot be mapped
            return np.zeros(shape, self.dtype)
        return np.memmap(self.path, self.dtype, "r", shape=shape)

    def remove(self) -> None:
        """Delete the file; the arrays that were made of it stay valid."""
        self.path.unlink()
