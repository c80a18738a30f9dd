"""Splitting: the firings of one feature of an SAE that several of another SAE share out among them.

Shapes: N tokens; A features of one, B of the other; K parts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from saelab.analysis.comparison.cofiring import Codes

PARTS = 5  # of a feature, at most
SHARE = 0.7  # of a feature's firings that count as covering it
WITHIN = 0.5  # of a part's firings that must be the feature's: or whatever fires often is a part
CONSIDERED = 32  # features of the other that fire most often with one
MIN_FIRED = 10  # firings below which a feature's are too few to say


class Split(NamedTuple):
    """What covers one feature."""

    feature: int
    fired: int
    """tokens on which it fires"""
    parts: list[int]
    """[K] features of the other, in the order in which each adds most, K at most PARTS"""
    covered: list[float]
    """[K] share of its firings on which at least one of the first 1, 2, 3 ... fires"""

    def by(self, n: int) -> float:
        """Share covered by the best n."""
        return self.covered[min(n, len(self.covered)) - 1] if self.covered else 0.0

    @property
    def is_split(self) -> bool:
        """Whether no one part covers SHARE of its firings, and several together do."""
        return self.by(1) < SHARE <= self.by(PARTS)


def splits(one_NA: Codes, other_NB: Codes, features: Sequence[int] | None = None) -> list[Split]:
    """How features of one SAE (None: all that fired MIN_FIRED times) are covered by parts in the
    other: features at least WITHIN of whose firings are the feature's, each the one that covers
    most of what is left.

    >>> split = [each for each in splits(codes["narrow"], codes["wide"]) if each.is_split]
    """
    one, other = _columns(one_NA), _columns(other_NB)
    rows = (other_NB.indptr, other_NB.indices)
    if features is None:
        features = np.flatnonzero(np.diff(one[0]) >= MIN_FIRED).tolist()
    mark_N = np.zeros(one_NA.shape[0], dtype=bool)
    fired_B = np.diff(other[0])
    return [_split(feature, one, other, rows, fired_B, mark_N) for feature in features]


def _columns(codes_NF: Codes) -> tuple[np.ndarray, np.ndarray]:
    """Where each feature's tokens start [F+1], and the tokens."""
    by_feature = codes_NF.tocsc()
    return by_feature.indptr, by_feature.indices


def _split(
    feature: int,
    one: tuple[np.ndarray, np.ndarray],
    other: tuple[np.ndarray, np.ndarray],
    rows: tuple[np.ndarray, np.ndarray],
    fired_B: np.ndarray,
    mark_N: np.ndarray,
) -> Split:
    """Greedy cover. mark_N: False everywhere, before and after."""
    own = one[1][one[0][feature] : one[0][feature + 1]]
    starts, stops = rows[0][own], rows[0][own + 1]
    there = np.concatenate([rows[1][a:b] for a, b in zip(starts, stops, strict=True)] or [own])
    shared_B = np.bincount(there, minlength=len(fired_B)) if len(own) else np.zeros_like(fired_B)
    candidates = np.flatnonzero((shared_B > 0) & (shared_B >= WITHIN * fired_B))
    best = candidates[np.argsort(-shared_B[candidates], kind="stable")][:CONSIDERED]
    tokens = {int(part): other[1][other[0][part] : other[0][part + 1]] for part in best}
    parts, covered, n_left = [], [], len(own)
    mark_N[own] = True
    while tokens and n_left and len(parts) < PARTS:
        adds = {part: int(mark_N[where].sum()) for part, where in tokens.items()}
        part = max(adds, key=lambda each: adds[each])
        if not adds[part]:
            break
        mark_N[tokens.pop(part)] = False
        n_left -= adds[part]
        parts.append(part)
        covered.append(1 - n_left / len(own))
    mark_N[own] = False
    return Split(int(feature), len(own), parts, covered)
