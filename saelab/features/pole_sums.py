"""What every pole fires on which token, or how strongly, summed over a corpus in bounded memory:
sorted runs on disk, merged at the end.

Shapes: P poles, V kinds (tokens of a vocabulary, bins of a histogram), N rows, each of one pole and
kind. Arrays are numpy.
"""

from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.groups import heads, stable_order
from saelab.features.spool import Spool

BUFFERED = 500_000  # rows held before they are summed up and written
RUNS = 24  # written before they are merged into one
POLES = 1024  # whose rows are merged at a time
ROW = np.dtype([("key", "<i8"), ("total", "<f8"), ("fired", "<i4")])  # key: pole x V + kind


class Run(NamedTuple):
    """Rows by ascending key, on disk."""

    spool: Spool
    """the rows"""
    bounds: NDArray
    """numbers of the rows at which blocks of POLES poles begin, and the end"""

    def block(self, number: int) -> NDArray:
        """The rows of a block."""
        return self.spool.rows(int(self.bounds[number]), int(self.bounds[number + 1]))


class PoleSums:
    """Running sums of values and counts of firings per pole and kind; runs lie in files whose names
    begin with that of `path`.

    >>> sums = PoleSums(n_poles, n_vocabulary, folder / "tokens")
    >>> sums.add(fired.pole, fired.token, fired.value)
    >>> rows_N = np.concatenate([*sums.blocks()])
    """

    def __init__(self, n_poles: int, n_kinds: int, path: Path) -> None:
        self.n_poles, self.n_kinds, self.path = n_poles, n_kinds, path
        # The keys at which blocks of POLES poles begin, and the end.
        first_B = np.append(np.arange(0, n_poles, POLES), n_poles)
        self.edges = first_B * np.int64(n_kinds)
        self.held: list[NDArray] = []
        self.runs: list[Run] = []
        self.n_written = 0

    def add(self, pole_N: NDArray, kind_N: NDArray, value_N: NDArray) -> None:
        """Count firings, given by ascending pole."""
        order = stable_order(kind_N, self.n_kinds)
        order = order[stable_order(pole_N[order], self.n_poles)]
        rows_N = np.empty(len(order), ROW)
        rows_N["key"] = pole_N[order] * np.int64(self.n_kinds) + kind_N[order]
        rows_N["total"], rows_N["fired"] = value_N[order], 1
        self.held.append(_added(rows_N))
        if sum(map(len, self.held)) > BUFFERED:
            self._write([_summed(self.held)])
            self.held = []
            if len(self.runs) > RUNS:
                self._merge()

    def _write(self, blocks: Iterable[NDArray]) -> None:
        spool = Spool(self.path.with_name(f"{self.path.name}-{self.n_written}"), ROW)
        bounds = np.zeros(len(self.edges), np.int64)
        for rows_N in blocks:
            spool.append(rows_N)
            bounds += np.searchsorted(rows_N["key"], self.edges)
        self.n_written += 1
        self.runs.append(Run(spool, bounds))

    def _merge(self) -> None:
        """One run in the place of all."""
        old = self.runs
        self.runs = []
        self._write(self._merged(old, np.zeros(0, ROW)))
        for run in old:
            run.spool.remove()

    def _merged(self, runs: list[Run], held_N: NDArray) -> Iterator[NDArray]:
        """The rows of all runs and those held, summed, in blocks; one of each is in memory."""
        bounds = np.searchsorted(held_N["key"], self.edges)
        for number, (first, last) in enumerate(pairwise(bounds.tolist())):
            yield _summed([*(run.block(number) for run in runs), held_N[first:last]])

    def blocks(self) -> Iterator[NDArray]:
        """All rows, summed, by ascending key, in blocks of POLES poles each."""
        yield from self._merged(self.runs, _summed([np.zeros(0, ROW), *self.held]))


def _summed(parts: list[NDArray]) -> NDArray:
    """One row per key, ascending, of parts in which they ascend."""
    rows_N = np.concatenate(parts)
    return _added(rows_N[np.argsort(rows_N["key"], kind="stable")])


def _added(rows_N: NDArray) -> NDArray:
    """One row per key of sorted rows."""
    first = heads(rows_N["key"])
    if not len(first):
        return rows_N
    summed = np.empty(len(first), ROW)
    summed["key"] = rows_N["key"][first]
    for column in ("total", "fired"):
        summed[column] = np.add.reduceat(rows_N[column], first)
    return summed
