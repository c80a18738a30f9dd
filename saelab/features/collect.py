"""What one pass over the codes of whole contexts says about every feature.

Shapes: C contexts of T positions in a chunk, F features, V vocabulary, N pairs, S examples, H
histogram bins. Arrays are numpy.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code
from saelab.features.examples import Examples, Firings, Pool, examples, fingerprints, firings
from saelab.features.schema import HIGHEST, LOWEST, PER_OCTAVE

N_TOP = 20  # contexts of highest peak per feature
N_SAMPLED = 64  # uniformly sampled contexts per feature, from which the quantile bands are drawn
N_BANDS, PER_BAND = 5, 4
BINS = PER_OCTAVE * (HIGHEST - LOWEST)
BUFFERED = 4_000_000  # (feature, token) rows held before they are summed up


class Statistics(NamedTuple):
    """fired, absolute_sum, max (value of the largest |value|, 0 if dead), positive (firings above
    0) [F]; histogram [F, 2, BINS] (negative, positive values); token_feature, token_id,
    token_total, token_fired: one row per feature and token it fired on; seen [V]: occurrences; top,
    sampled: examples by feature; n_tokens counted.
    """

    fired: NDArray
    absolute_sum: NDArray
    max: NDArray
    positive: NDArray
    histogram: NDArray
    token_feature: NDArray
    token_id: NDArray
    token_total: NDArray
    token_fired: NDArray
    seen: NDArray
    top: Examples
    sampled: Examples
    n_tokens: int


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

    def add(self, code: Code, tokens_CT: NDArray) -> None:
        """Count a chunk: the code of tokens_CT's C x T tokens."""
        fired = firings(code, tokens_CT, self.n_contexts)
        self._count(fired)
        self._count_tokens(fired)
        self._keep_examples(examples(fired))
        self.seen_V += np.bincount(tokens_CT[:, 1:].reshape(-1), minlength=self.n_vocabulary)
        self.n_contexts += len(tokens_CT)
        self.n_tokens += tokens_CT[:, 1:].size

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
            summed = (
                np.add.reduceat(np.concatenate(columns)[order], heads)
                if len(heads)
                else np.concatenate(columns)
            )
            columns[:] = [summed]

    def _keep_examples(self, found: Examples) -> None:
        size_S = np.abs(found.peak)
        larger = size_S > np.abs(self.max_F[found.feature])
        order = np.flatnonzero(larger)[np.argsort(size_S[larger], kind="stable")]
        self.max_F[found.feature[order]] = found.peak[
            order
        ]  # the last assignment, the largest, stays
        self.top.add(found, size_S)
        self.sampled.add(found, fingerprints(found.feature, found.context, self.seed))

    def result(self) -> Statistics:
        """The statistics of all chunks so far."""
        if self.keys:
            self._sum_tokens()
        keys = self.keys[0] if self.keys else np.zeros(0, np.int64)
        tokens = (self.sums[0], self.counts[0]) if self.keys else (np.zeros(0), keys)
        return Statistics(
            self.fired_F,
            self.sum_F,
            self.max_F,
            self.positive_F,
            self.histogram_FH.reshape(self.n_features, 2, BINS),
            keys // self.n_vocabulary,
            keys % self.n_vocabulary,
            *tokens,
            self.seen_V,
            self.top.result()[0],
            self.sampled.result()[0],
            self.n_tokens,
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
    first_S = np.searchsorted(feature_S, feature_S)
    count_S = np.searchsorted(feature_S, feature_S, side="right") - first_S
    band_S = (np.arange(len(order)) - first_S) * n_bands // np.maximum(count_S, 1)
    width = int(max(sampled.context.max(initial=0), top.context.max(initial=0))) + 1
    fresh_S = ~np.isin(
        feature_S * width + sampled.context[order], top.feature * width + top.context
    )
    order, band_S, feature_S = order[fresh_S], band_S[fresh_S], feature_S[fresh_S]
    cell_S = feature_S * n_bands + band_S
    kept = np.lexsort((order, cell_S))  # `sampled` is in random order within a feature
    sorted_S = cell_S[kept]
    kept = kept[np.arange(len(kept)) - np.searchsorted(sorted_S, sorted_S) < per_band]
    kept = kept[np.lexsort((-np.abs(sampled.peak[order[kept]]), cell_S[kept]))]
    return order[kept], band_S[kept]
