"""Which tokens a feature is at home on, and which features a token is home to.

The score of a feature on a token is selectivity x coverage: the share of the feature's activation
(of one sign) that lies on the token, times the share of the token's occurrences on which it fires.
A feature that fires on everything has no selectivity, one that fires once on a frequent token no
coverage. Shapes: P poles, F features, V vocabulary, N (pole, token) rows. Arrays are numpy.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.groups import best, place_in_group
from saelab.features.lists import Lists
from saelab.features.schema import (
    HOME,
    MIN_SEEN,
    N_FEATURES,
    N_LISTED,
    N_TOKENS,
    STRONG,
)

BUFFERED = 500_000  # rows held before all but the best of each token are dropped


class Strongest(NamedTuple):
    """What the sums over tokens say, beside the lists of each feature's tokens."""

    homes: NDArray
    """[N] records HOME, by token, best score first"""
    home_token: NDArray
    """[N] their tokens"""
    entropy: NDArray
    """[P] bits: of the shares of the pole's activation that lie on each token"""
    listed: NDArray
    """[F, N_LISTED] tokens strongest by total, of both signs; -1: none"""


class _Homes:
    """The N_FEATURES best-scored rows of each token, over any number of blocks."""

    def __init__(self, n_vocabulary: int) -> None:
        self.bar_V = np.full(n_vocabulary, -np.inf)
        self.parts: list[tuple[NDArray, ...]] = []
        self.buffered = 0

    def add(self, token_N: NDArray, score_N: NDArray, *columns: NDArray) -> None:
        """Offer rows with their scores; poles ascend."""
        better = np.flatnonzero(score_N > self.bar_V[token_N])
        self.parts.append(tuple(column[better] for column in (token_N, score_N, *columns)))
        self.buffered += len(better)
        if self.buffered > max(BUFFERED, len(self.parts[0][0])):
            self.result()

    def result(self) -> tuple[NDArray, ...]:
        """The kept rows, by token, then falling score, ties to the lower pole."""
        columns = [np.concatenate(column) for column in zip(*self.parts, strict=True)]
        kept = best(columns[0], columns[1], N_FEATURES)
        self.parts = [tuple(column[kept] for column in columns)]
        token_N, score_N = self.parts[0][:2]
        last = np.flatnonzero(np.append(np.diff(token_N) != 0, True)[: len(token_N)])
        full = np.diff(last, prepend=-1) == N_FEATURES
        self.bar_V[token_N[last[full]]] = score_N[last[full]]
        self.buffered = 0
        return self.parts[0]


def strongest(
    blocks: Iterable[NDArray], sums_P: NDArray, seen_V: NDArray, n_poles_each: int, strong: Lists
) -> Strongest:
    """From the rows of `PoleSums.blocks`; each feature's strongest tokens go to `strong`. sums_P:
    each pole's sum of |value| over all tokens; seen_V: occurrences of each token; n_poles_each: of
    a feature, 1 or 2."""
    homes, entropy_P = _Homes(len(seen_V)), np.zeros(len(sums_P))
    listed_FK = np.full((len(sums_P) // n_poles_each, N_LISTED), -1, np.int32)
    for rows_N in blocks:
        pole_N, token_N = np.divmod(rows_N["key"], len(seen_V))
        share_N = np.abs(rows_N["total"]) / np.maximum(sums_P[pole_N], 1e-300)
        coverage_N = rows_N["fired"] / np.maximum(seen_V[token_N], 1)
        homes.add(token_N, share_N * coverage_N, pole_N.astype(np.int32), share_N, coverage_N)
        bits_N = -share_N * np.log2(np.maximum(share_N, 1e-300))
        entropy_P += np.bincount(pole_N, bits_N, minlength=len(sums_P))
        records, kept = _strong(rows_N, pole_N, token_N, seen_V, n_poles_each)
        records["selectivity"], records["coverage"] = share_N[kept], coverage_N[kept]
        feature_N = pole_N[kept] // n_poles_each
        strong.add(records, feature_N)
        _list(listed_FK, records, feature_N)
    token_N, _, pole_N, share_N, coverage_N = homes.result()
    home_N = np.empty(len(token_N), HOME)
    home_N["feature"], sign_N = pole_N // n_poles_each, 1 - 2 * (pole_N % n_poles_each)
    home_N["sign"], home_N["selectivity"], home_N["coverage"] = sign_N, share_N, coverage_N
    return Strongest(home_N, token_N, entropy_P, listed_FK)


def _list(listed_FK: NDArray, records: NDArray, feature_N: NDArray) -> None:
    """Write the tokens strongest by total of a block's features into their rows."""
    kept = best(feature_N, np.abs(records["total"]), N_LISTED)
    listed_FK[feature_N[kept], place_in_group(feature_N[kept])] = records["token"][kept]


def _strong(
    rows_N: NDArray, pole_N: NDArray, token_N: NDArray, seen_V: NDArray, n_poles_each: int
) -> tuple[NDArray, NDArray]:
    """The rows that are among a pole's strongest by total or by mean, as records without shares;
    and their numbers."""
    seen_N = seen_V[token_N]
    by_total_N = _ranks(pole_N, np.abs(rows_N["total"]))
    mean_N = np.abs(rows_N["total"]) / np.maximum(seen_N, 1)
    by_mean_N = _ranks(pole_N, np.where(seen_N >= MIN_SEEN, mean_N, -1))
    by_mean_N[seen_N < MIN_SEEN] = N_TOKENS
    kept = np.flatnonzero((by_total_N < N_TOKENS) | (by_mean_N < N_TOKENS))
    records = np.empty(len(kept), STRONG)
    records["sign"] = 1 - 2 * (pole_N[kept] % n_poles_each)
    records["by_total"] = np.minimum(by_total_N[kept], N_TOKENS)
    records["by_mean"] = np.minimum(by_mean_N[kept], N_TOKENS)
    records["token"], records["total"] = token_N[kept], rows_N["total"][kept]
    records["fired"] = rows_N["fired"][kept]
    return records, kept


def _ranks(pole_N: NDArray, score_N: NDArray) -> NDArray:
    """Each row's place, 0 the highest score, among the rows of its pole."""
    order = np.lexsort((-score_N, pole_N))
    rank_N = np.empty(len(order), np.int64)
    rank_N[order] = place_in_group(pole_N[order])
    return rank_N
