"""How well a feature's values rank positions of a concept first; equal values count as one.

Shapes: N positions, C concepts, L levels (distinct values) of one feature, the last of them 0.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse

TOP = 16  # positions of Purity@16


class Levels(NamedTuple):
    """The distinct values of one side of a feature, falling, the last of them 0."""

    rows: np.ndarray
    """[n] positions of values above 0, by falling value"""
    ends: np.ndarray
    """[L - 1] where each level ends among them"""


def average_precision(hits: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sum over levels of the recall that each adds times the precision down to it: hits and sizes
    [..., L] count positions of the concept, and all. Positions of one value are one level. NaN
    without any of the concept.

    >>> average_precision(np.array([1, 0, 1]), np.array([1, 1, 1]))  # (1 + 2/3) / 2
    0.8333333333333333
    """
    found = hits.cumsum(-1)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(sizes > 0, found / sizes.cumsum(-1), 0)
        return (hits * precision).sum(-1) / found[..., -1]


def purity(hits: np.ndarray, sizes: np.ndarray, top: int = TOP) -> np.ndarray:
    """Share of the concept among the `top` positions of the largest values; of a level that does
    not fit whole its mean share, so that the order of equal values does not matter."""
    before = sizes.cumsum(-1) - sizes
    taken = np.clip(top - before, 0, sizes)
    with np.errstate(invalid="ignore", divide="ignore"):
        share = np.where(sizes > 0, hits / sizes, 0)
    return (taken * share).sum(-1) / np.minimum(top, sizes.sum(-1))


def sides(codes: scipy.sparse.csr_array) -> list[list[Levels]]:
    """Levels of each side that occurs, +1 first, of each feature."""
    columns = codes.tocsc()
    signs = (1, -1) if (columns.data < 0).any() else (1,)
    n_features = len(columns.indptr) - 1
    return [[_levels(columns, f, sign) for f in range(n_features)] for sign in signs]


def _levels(columns: scipy.sparse.csc_array, feature: int, sign: int) -> Levels:
    span = slice(columns.indptr[feature], columns.indptr[feature + 1])
    values, rows = sign * columns.data[span], columns.indices[span]
    rows, values = rows[values > 0], values[values > 0]
    order = np.argsort(-values, kind="stable")
    falling = values[order]
    ends = np.flatnonzero(np.diff(falling, append=-np.inf)) + 1 if len(falling) else falling
    return Levels(rows[order], ends.astype(np.int64))


def counts(levels: Levels, counted_NC: np.ndarray, total_C: np.ndarray) -> np.ndarray:
    """[C, L]: sums of counted_NC over the positions of each level, that of the value 0 last."""
    below = np.zeros((1, counted_NC.shape[1]))
    if not len(levels.rows):
        return total_C[:, None].astype(float)
    summed = counted_NC[levels.rows].cumsum(0, dtype=float)[levels.ends - 1]
    parts = np.diff(np.concatenate([below, summed, total_C[None]]), axis=0)
    return parts.T
