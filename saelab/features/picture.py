"""A context that is an image, as an index keeps it. Imports no torch."""

from collections.abc import Sequence
from typing import Any, NamedTuple


class Grid(NamedTuple):
    """Where the positions of a context lie in its image."""

    rows: int
    """of patches"""
    columns: int
    """of patches"""
    patch: int
    """pixels a side"""
    prefix: int
    """positions before the first patch"""

    def place(self, position: int) -> tuple[int, int] | None:
        """Row and column of a position's patch; None of one that is no patch."""
        number = position - self.prefix
        inside = 0 <= number < self.rows * self.columns
        return divmod(number, self.columns) if inside else None


class Picture(NamedTuple):
    """A context that is an image, as its model saw it."""

    context: int
    """number of the context"""
    jpeg: bytes
    """a JPEG file"""
    grid: Grid
    features: Sequence[Sequence[tuple[int, float]]]
    """of each patch, row by row: the strongest features, as (feature, activation)"""
    labels: Any
    """[H, W, K] numbers of concepts, -1 for none; None where it has no labels"""
    kinds: tuple[str, ...]
    """what each label is of, such as `object`"""
    concepts: tuple[str, ...]
    """name of each label"""
