"""Weights of published files, read a piece at a time: nothing is copied whole into another dtype.

Shapes: F features, D width.
"""

import math
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from saelab.errors import FailedRun, UsageError
from saelab.formats.mapped import forget

PIECE = 1 << 20  # entries that are converted at once

Span = tuple[slice, slice]


class Stored(Protocol):
    """What lies in a file: a mapped tensor, or a `Member` of an archive."""

    @property
    def shape(self) -> Any: ...

    @property
    def dtype(self) -> Any: ...

    def split(self, n_rows: int, /) -> Iterable[Tensor]:
        """Its rows in order, so many at a time."""
        ...


class Matrix:
    """[F, D], whichever way round it lies in its file.

    >>> W_enc = Matrix(tensors["W_enc"], transposed=True)  # [D, F] there
    >>> for span, piece in W_enc.pieces():
    ...     out_FD[span] = piece
    """

    def __init__(self, stored: Stored, transposed: bool = False) -> None:
        if len(stored.shape) != 2:
            raise FailedRun(f"a matrix of weights has the shape {list(stored.shape)}")
        self.stored, self.is_finite = stored, False
        self.transposed = transposed != getattr(stored, "column_major", False)

    @property
    def shape(self) -> tuple[int, int]:
        """(F, D)."""
        n_rows, width = self.stored.shape
        return (width, n_rows) if self.transposed else (n_rows, width)

    def pieces(self) -> Iterator[tuple[Span, Tensor]]:
        """(where, float64 values there, which may be changed) of pieces that make up the whole.
        Raises FailedRun for values that are not finite."""
        first, step = 0, max(1, PIECE // self.stored.shape[1])
        for rows in self.stored.split(step):
            values = rows.to(torch.float64, copy=True)
            # Sums of float32 values do not overflow in float64; what was read once stays finite.
            if not (self.is_finite or bool(torch.isfinite(values.sum()))):
                raise FailedRun("the weights hold values that are not finite")
            forget(rows)
            span = slice(first, first + len(rows))
            yield (
                ((slice(None), span), values.T)
                if self.transposed
                else (
                    (span, slice(None)),
                    values,
                )
            )
            first += len(rows)
        self.is_finite = True


class Member:
    """An array of an .npz file, which cannot be mapped: `split` reads it from the archive."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name
        with self._opened() as (shape, self.column_major, self.dtype, _):
            # In column-major order the rows of the file are the array's columns.
            self.shape = shape[::-1] if self.column_major else shape

    def _opened(self) -> "_Entry":
        return _Entry(self.path, self.name)

    def split(self, n_rows: int, /) -> Iterator[Tensor]:
        """The rows as they lie in the file, so many at a time."""
        n_left, width = self.shape[0], math.prod(self.shape[1:])
        with self._opened() as (*_, file):
            while n_left:
                n = min(n_rows, n_left)
                raw = bytearray(file.read(n * width * self.dtype.itemsize))
                values = np.frombuffer(raw, self.dtype).reshape(n, *self.shape[1:])
                yield torch.from_numpy(values)
                n_left -= n

    def whole(self) -> Tensor:
        """All of it, as [N]."""
        return torch.cat(list(self.split(max(1, self.shape[0])))) if self.shape else self._scalar()

    def _scalar(self) -> Tensor:
        with self._opened() as (*_, file):
            return torch.from_numpy(np.frombuffer(bytearray(file.read()), self.dtype))[0]


class _Entry:
    """An open member of an archive behind its header. Raises UsageError for one of Python
    objects, FailedRun for a damaged one."""

    def __init__(self, path: Path, name: str) -> None:
        self.path, self.name = path, name

    def __enter__(self) -> tuple[tuple[int, ...], bool, np.dtype, Any]:
        self.archive = zipfile.ZipFile(self.path)
        self.file = self.archive.open(f"{self.name}.npy")
        version = np.lib.format.read_magic(self.file)
        read = getattr(np.lib.format, f"read_array_header_{version[0]}_0")
        shape, column_major, dtype = read(self.file)
        if dtype.hasobject:
            self.__exit__()
            raise UsageError(
                f"{self.path} holds Python objects in {self.name}, whose reading could run code: "
                "only arrays of numbers are read"
            )
        return shape, column_major and len(shape) > 1, dtype, self.file

    def __exit__(self, *_: object) -> None:
        self.file.close()
        self.archive.close()
