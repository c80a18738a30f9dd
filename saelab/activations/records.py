"""What reading a cache returns.

Shapes: C contexts, T positions, N tokens, D width.
"""

from collections.abc import Iterable, Iterator
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


def first_counted(chunks: Iterable[Contexts], n_tokens: int | None = None) -> Iterator[Tokens]:
    """The first n_tokens tokens of contexts that count (None: all), in chunks."""
    n_read = 0
    for chunk in chunks:
        columns = (chunk.acts, chunk.documents, chunk.tokens)
        left = None if n_tokens is None else n_tokens - n_read
        tokens = Tokens(*(column[chunk.counted][:left] for column in columns))
        n_read += len(tokens.x)
        yield tokens
        if n_tokens is not None and n_read >= n_tokens:
            return
