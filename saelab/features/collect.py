"""What one pass over the codes of whole contexts says about every feature.

Shapes: C contexts of T positions in a chunk, F features, V vocabulary, N pairs, S examples, H
histogram bins. Arrays are numpy.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code
from saelab.features.examples import (
    Examples,
    Firings,
    Pool,
    examples,
    fingerprints,
    firings,
    place_in_group,
)
from saelab.features.schema import HIGHEST, LOWEST, PER_OCTAVE

N_TOP = 20  # contexts of highest peak per feature
N_SAMPLED = 64  # uniformly sampled contexts per feature, from which the quantile bands are drawn
N_BANDS, PER_BAND = 5, 4
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
BUFFERED = 4_000_000  # (feature, token) rows held before they are summed up


class Contexts(NamedTuple):
    """What the index keeps of the contexts it read."""

    tokens: NDArray
    """[C, T]"""
    documents: NDArray
    """[C, T] document numbers"""
    counted: NDArray
    """[C, T] which positions count"""


class Statistics(NamedTuple):
    """Sums over all counted tokens; the four `token_` columns have one row per feature and token
    that it fired on."""

    fired: NDArray
    """[F] tokens on which the feature fired"""
    absolute_sum: NDArray
    """[F] sum of |value|"""
    max: NDArray
    """[F] the value of largest size, 0 if dead"""
    positive: NDArray
    """[F] firings above 0"""
    histogram: NDArray
    """[F, 2, BINS] counts of negative and of positive values"""
    token_feature: NDArray
    """[N] feature"""
    token_id: NDArray
    """[N] token"""
    token_total: NDArray
    """[N] sum of the feature's values on it"""
    token_fired: NDArray
    """[N] occurrences on which it fired"""
    seen: NDArray
    """[V] occurrences of every token"""
    top: Examples
    """contexts of highest peak, by feature"""
    sampled: Examples
    """contexts drawn uniformly, by feature"""
    n_tokens: int
    """tokens counted"""


def bin_of(value_N: NDArray) -> NDArray:
    """The histogram bin of each |value|."""
    octave_N = np.floor(PER_OCTAVE * np.log2(np.abs(value_N)))
    return np.clip(octave_N - PER_OCTAVE * LOWEST, 0, BINS - 1).astype(np.int64)


class Collector:
    """Running statistics; give it every chunk once, in order."""

    def __init__(self, n_features: int, n_vocabulary: int, seed: int = 0) -> None:
        self.n_features, self.n_vocabulary, self.seed = n_features, n_vocabulary, seed
        self.fired_F = np.zeros(n_features, np.int64)
        self.positive_F = np.zeros(n_features, np.int64)
        self.sum_F = np.zeros(n_features)
        self.max_F = np.zeros(n_features, np.float32)
        self.histogram_FH = np.zeros(n_features * 2 * BINS, np.int32)
        self.seen_V = np.zeros(n_vocabulary, np.int64)
        self.keys: list[NDArray] = []
        self.sums: list[NDArray] = []
        self.counts: list[NDArray] = []
        self.top, self.sampled = Pool(N_TOP, n_features), Pool(N_SAMPLED, n_features)
        self.n_contexts = self.n_tokens = 0

    def add(self, code: Code, tokens_CT: NDArray, counted_CT: NDArray) -> None:
        """Count a chunk: the code of tokens_CT's C x T tokens, at positions that count."""
        fired = firings(code, tokens_CT, counted_CT, self.n_contexts)
        self._count(fired)
        self._count_tokens(fired)
        self._keep_examples(examples(fired))
        self.seen_V += np.bincount(tokens_CT[counted_CT], minlength=self.n_vocabulary)
        self.n_contexts += len(tokens_CT)
        self.n_tokens += int(counted_CT.sum())

    def _count(self, fired: Firings) -> None:
        above_N = fired.value > 0
        self.fired_F += np.bincount(fired.feature, minlength=self.n_features)
        self.positive_F += np.bincount(fired.feature[above_N], minlength=self.n_features)
        self.sum_F += np.bincount(fired.feature, np.abs(fired.value), minlength=self.n_features)
        cell_N = (fired.feature * 2 + above_N) * BINS + bin_of(fired.value)
        self.histogram_FH += np.bincount(cell_N, minlength=len(self.histogram_FH)).astype(np.int32)

    def _count_tokens(self, fired: Firings) -> None:
        self.keys.append(fired.feature * self.n_vocabulary + fired.token)
        self.sums.append(fired.value.astype(np.float64))
        self.counts.append(np.ones(len(fired.value), np.int64))
        if sum(map(len, self.keys)) > BUFFERED + 2 * len(self.keys[0]):
            self._sum_tokens()

    def _sum_tokens(self) -> None:
        keys_N = np.concatenate(self.keys)
        order = np.argsort(keys_N, kind="stable")
        sorted_N = keys_N[order]
        heads = np.flatnonzero(np.diff(sorted_N, prepend=-1))
        self.keys = [sorted_N[heads]]
        for columns in (self.sums, self.counts):
            summed = np.concatenate(columns)
            if len(heads):  # reduceat takes no empty list of heads
                summed = np.add.reduceat(summed[order], heads)
            columns[:] = [summed]

    def _keep_examples(self, new: Examples) -> None:
        size_S = np.abs(new.peak)
        larger = size_S > np.abs(self.max_F[new.feature])
        order = np.flatnonzero(larger)[np.argsort(size_S[larger], kind="stable")]
        # A feature may stand here several times: the last assignment, of the largest peak, stays.
        self.max_F[new.feature[order]] = new.peak[order]
        self.top.add(new, size_S)
        self.sampled.add(new, fingerprints(new.feature, new.context, self.seed))

    def result(self) -> Statistics:
        """The statistics of all chunks so far."""
        if self.keys:
            self._sum_tokens()
        keys = self.keys[0] if self.keys else np.zeros(0, np.int64)
        totals, counts = (self.sums[0], self.counts[0]) if self.keys else (np.zeros(0), keys)
        return Statistics(
            fired=self.fired_F,
            absolute_sum=self.sum_F,
            max=self.max_F,
            positive=self.positive_F,
            histogram=self.histogram_FH.reshape(self.n_features, 2, BINS),
            token_feature=keys // self.n_vocabulary,
            token_id=keys % self.n_vocabulary,
            token_total=totals,
            token_fired=counts,
            seen=self.seen_V,
            top=self.top.result()[0],
            sampled=self.sampled.result()[0],
            n_tokens=self.n_tokens,
        )


def bands(
    sampled: Examples, top: Examples, n_bands: int = N_BANDS, per_band: int = PER_BAND
) -> tuple[NDArray, NDArray]:
    """Examples across the quantiles: (numbers into `sampled`, band of each, 0 the weakest), by
    feature, band, falling |peak|.

    A feature's sampled contexts, ordered by |peak|, are cut into n_bands equal parts; of each, the
    first per_band in the sample's (random) order that are not among the top ones are kept.
    """
    order = np.lexsort((np.abs(sampled.peak), sampled.feature))
    feature_S = sampled.feature[order]
    # The bands are cut over all of a feature's sample, before its top contexts leave it: they would
    # otherwise shift towards the weak end.
    count_S = np.bincount(feature_S)[feature_S]
    band_S = place_in_group(feature_S) * n_bands // count_S
    # One number per (feature, context), so that `isin` can compare pairs.
    width = int(max(sampled.context.max(initial=0), top.context.max(initial=0))) + 1
    pair_S = feature_S * width + sampled.context[order]
    fresh_S = ~np.isin(pair_S, top.feature * width + top.context)
    order, cell_S = order[fresh_S], (feature_S * n_bands + band_S)[fresh_S]
    # Within a feature `sampled` is in random order, so its first of a cell are a fair sample of it.
    kept = np.lexsort((order, cell_S))
    kept = kept[place_in_group(cell_S[kept]) < per_band]
    # The cells stay as they are; within each, the strongest comes first.
    kept = kept[np.lexsort((-np.abs(sampled.peak[order[kept]]), cell_S[kept]))]
    return order[kept], cell_S[kept] % n_bands
