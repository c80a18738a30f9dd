"""What reading a cache returns.

Shapes: C contexts, T positions, N tokens, D width.
"""

from typing import NamedTuple

from torch import Tensor


class Contexts(NamedTuple):
    """Whole contexts in order, with the positions that do not count."""

    tokens: Tensor
    """[C, T] int64"""
    acts: Tensor
    """[C, T, D] float32"""
    documents: Tensor
    """[C, T] int64: number of the document of each position"""
    counted: Tensor
    """[C, T] bool: which positions count: not the first, unless the cache says so, and no
    padding"""

    def part(self, rows: slice) -> "Contexts":
        """The contexts of those rows."""
        return Contexts(*(column[rows] for column in self))


class Tokens(NamedTuple):
    """Tokens that count, in order."""

    x: Tensor
    """[N, D] float32"""
    documents: Tensor
    """[N] int64: number of the document of each"""
    tokens: Tensor
    """[N] int64"""
