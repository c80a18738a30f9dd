"""Finding rules: per unit and family the few keys that tell best where it fires.

A key's gain is the share of the firings that it covers less the share of the other places that it
covers. Over keys of one family gains add up, as each place has one key, and a rule's balanced
accuracy is (1 + gain) / 2: so the best rule of k keys are the k keys of largest gain.

Shapes: M places, K keys, U units.
"""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from saelab.explaining.families import Family

PRICE = 0.01  # of gain that a key must bring
LEAST = 2  # firings from which a key counts
BLOCK = 512  # units whose ranges are looked for at once


class Counts(NamedTuple):
    """How often units fire at each key of a family, in some part of a corpus."""

    hits: Any
    """[U, K] sparse"""
    fired: NDArray
    """[U] firings"""
    seen: NDArray
    """[K] places"""

    @property
    def n_places(self) -> int:
        """M."""
        return int(self.seen.sum())

    def __add__(self, other: "Counts") -> "Counts":  # type: ignore[override]
        return Counts(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))


def count(family: Family, fires_UM: Any, places_M: NDArray) -> Counts:
    """Counts at some places, at which alone fires_UM has entries."""
    hits_UK = (fires_UM @ family.matrix()).tocsr()
    fired_U = np.asarray(fires_UM.sum(axis=1)).reshape(-1)
    return Counts(hits_UK, fired_U, family.counts(places_M))


def find(family: Family, counts: Counts, most: int | None = None) -> Any:
    """[U, K] sparse bool: each unit's best rule of at most so many keys (default: the family's; of
    an ordered family one range); no keys where none gains PRICE.

    >>> rules_UK = find(token, count(token, fires_UM, places_M))
    """
    return _ranges(family, counts) if family.ordered else _best(family, counts, most or family.most)


def _best(family: Family, counts: Counts, most: int) -> Any:
    hits_UK = counts.hits if family.allowed is None else counts.hits.multiply(family.allowed)
    hits = hits_UK.tocoo()
    often_N = (hits.data >= LEAST) & (family.values[hits.col] >= 0)
    unit_N, key_N, hits_N = hits.row[often_N], hits.col[often_N], hits.data[often_N]
    gain_N = _gain(hits_N, counts.fired[unit_N], counts.seen[key_N], counts.n_places)
    good_N = gain_N > PRICE
    unit_N, key_N, gain_N = unit_N[good_N], key_N[good_N], gain_N[good_N]
    order = np.lexsort((key_N, -gain_N, unit_N))
    unit_N, key_N = unit_N[order], key_N[order]
    rank_N = np.arange(len(unit_N)) - np.searchsorted(unit_N, unit_N)
    return matrix(unit_N[rank_N < most], key_N[rank_N < most], counts.hits.shape)


def _gain(hits: NDArray, fired: NDArray, seen: NDArray, n_places: int) -> NDArray:
    misses = np.maximum(n_places - fired, 1)
    return hits / np.maximum(fired, 1) - (seen - hits) / misses


def matrix(unit_N: NDArray, key_N: NDArray, shape: tuple[int, int]) -> Any:
    return scipy.sparse.csr_array((np.ones(len(unit_N), np.int32), (unit_N, key_N)), shape=shape)


def _ranges(family: Family, counts: Counts) -> Any:
    """Each unit's range of keys of largest summed gain."""
    known = np.flatnonzero(family.values >= 0)
    parts = []
    for first in range(0, len(counts.fired), BLOCK):
        hits_BK = counts.hits[first : first + BLOCK].toarray()[:, known]
        fired_B1 = counts.fired[first : first + BLOCK, None]
        gain_BK = _gain(hits_BK, fired_B1, counts.seen[known], counts.n_places)
        low_B, high_B, best_B = largest_runs(gain_BK)
        hits_BL = np.concatenate([np.zeros_like(fired_B1), np.cumsum(hits_BK, axis=1)], axis=1)
        rows = np.arange(len(hits_BL))
        often_B = hits_BL[rows, high_B] - hits_BL[rows, low_B] >= LEAST
        unit_B = np.flatnonzero((best_B > PRICE) & often_B)
        length_B = (high_B - low_B)[unit_B]
        unit_N = np.repeat(unit_B, length_B)
        within_N = np.arange(len(unit_N)) - np.repeat(np.cumsum(length_B) - length_B, length_B)
        parts.append((unit_N + first, known[low_B[unit_N] + within_N]))
    unit_N, key_N = (np.concatenate(column) for column in zip(*parts, strict=True))
    return matrix(unit_N, key_N, counts.hits.shape)


def largest_runs(gain_BK: NDArray) -> tuple[NDArray, NDArray, NDArray]:
    """Per row the run of neighbours of largest sum: (first, behind the last, sum) [B]. Bentley
    1984, by cumulative sums."""
    zeros_B1 = np.zeros((len(gain_BK), 1))
    sums_BL = np.concatenate([zeros_B1, np.cumsum(gain_BK, axis=1)], axis=1)
    lowest_BL = np.minimum.accumulate(sums_BL, axis=1)
    run_BK = sums_BL[:, 1:] - lowest_BL[:, :-1]
    last_B = run_BK.argmax(axis=1)
    rows = np.arange(len(gain_BK))
    # The run begins behind the lowest sum before its end, of equal ones the last: the shortest run.
    before_BL = np.where(np.arange(sums_BL.shape[1]) <= last_B[:, None], sums_BL, np.inf)
    first_B = before_BL.shape[1] - 1 - before_BL[:, ::-1].argmin(axis=1)
    return first_B, last_B + 1, run_BK[rows, last_B]


def advantage(rules_UK: Any, counts: Counts) -> NDArray:
    """[U] by how much the balanced accuracy of rules exceeds one half where these were counted; NaN
    for a unit that never fires there."""
    hits_U = np.asarray(counts.hits.multiply(rules_UK).sum(axis=1)).reshape(-1)
    told_U = rules_UK @ counts.seen
    with np.errstate(invalid="ignore", divide="ignore"):
        recall_U = np.where(counts.fired > 0, hits_U / counts.fired, np.nan)
    misses_U = np.maximum(counts.n_places - counts.fired, 1)
    return (recall_U - (told_U - hits_U) / misses_U) / 2
