"""What one pass over the codes of whole contexts says about every feature, in memory that does not
grow with the corpus.

A pole is a feature, or one sign of a signed feature. Shapes: C contexts of T positions in a chunk,
F features, P poles, V vocabulary, N pairs. Arrays are numpy.
"""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code
from saelab.features.cofiring import Sample
from saelab.features.examples import (
    Examples,
    Firings,
    Pool,
    fingerprints,
    firings,
    groups,
    peaks,
)
from saelab.features.groups import heads
from saelab.features.pole_sums import PoleSums
from saelab.features.schema import BINS, LOWEST, N_BANDS, N_TOP, PER_BAND, PER_OCTAVE
from saelab.features.spool import Spool

SPARE = 4  # more contexts of highest peak than are shown, as near-duplicates are merged
N_SAMPLED = 2 * N_BANDS * PER_BAND  # firings drawn per pole, from which the bands are cut


class Contexts(NamedTuple):
    """The contexts that were read, on disk."""

    tokens: NDArray
    """[C, T]"""
    documents: NDArray
    """[C, T] document numbers"""
    counted: NDArray
    """[C, T] which positions count"""


class Statistics(NamedTuple):
    """Sums over all counted tokens."""

    fired: NDArray
    """[P] tokens on which the pole fired"""
    absolute_sum: NDArray
    """[P] sum of |value|"""
    max: NDArray
    """[P] the largest |value|, 0 if it never fired"""
    histogram: PoleSums
    """counts by pole and bin of |value|"""
    seen: NDArray
    """[V] occurrences of every token; empty without a vocabulary"""
    tokens: PoleSums | None
    """sums by pole and token; None without a vocabulary"""
    top: list[Examples]
    """contexts of highest peak, by pole, in blocks"""
    sampled: list[Examples]
    """firings drawn uniformly, by pole, in blocks of the same poles"""
    cofiring: Sample
    """what fired on a sample of the contexts"""
    contexts: Contexts
    n_tokens: int
    """tokens counted"""


def bin_of(value_N: NDArray) -> NDArray:
    """The histogram bin of each |value|."""
    octave_N = np.floor(PER_OCTAVE * np.log2(np.abs(value_N)))
    return np.clip(octave_N - PER_OCTAVE * LOWEST, 0, BINS - 1).astype(np.int64)


class Collector:
    """Running statistics; give it every chunk once, in order. What grows with the corpus lies in
    `folder`. n_vocabulary: 0 where tokens are no words of a vocabulary."""

    def __init__(
        self, n_features: int, n_vocabulary: int, folder: Path, signed: bool, seed: int = 0
    ) -> None:
        self.signed, self.seed, self.folder = signed, seed, folder
        self.n_features, self.n_vocabulary = n_features, n_vocabulary
        self.n_poles = n_features * (1 + signed)
        self.fired_P = np.zeros(self.n_poles, np.int64)
        self.sum_P = np.zeros(self.n_poles)
        self.max_P = np.zeros(self.n_poles, np.float32)
        self.histogram = PoleSums(self.n_poles, BINS, folder / "bins")
        self.seen_V = np.zeros(n_vocabulary, np.int64)
        self.tokens: PoleSums | None = None
        if n_vocabulary:
            self.tokens = PoleSums(self.n_poles, n_vocabulary, folder / "tokens")
        self.top = Pool(N_TOP + SPARE, self.n_poles, _size, merge=True)
        self.sampled = Pool(N_SAMPLED, self.n_poles, self._draw)
        self.cofiring = Sample(n_features, seed)
        self.spools: tuple[Spool, ...] = ()
        self.n_contexts = self.n_tokens = 0

    def _draw(self, rows: Firings | Examples) -> NDArray:
        return -fingerprints(rows.pole, rows.context, rows.position, self.seed)

    def add(
        self, code: Code, tokens_CT: NDArray, documents_CT: NDArray, counted_CT: NDArray
    ) -> None:
        """Count a chunk: the code of tokens_CT's C x T tokens, at positions that count."""
        fired = firings(code, tokens_CT, counted_CT, self.n_contexts, self.signed)
        self._count(fired)
        if self.tokens is not None:
            self.tokens.add(fired.pole, fired.token, fired.value)
            self.seen_V += np.bincount(tokens_CT[counted_CT], minlength=self.n_vocabulary)
        bounds = groups(fired)
        self.top.add(fired, peaks(fired, bounds), bounds)
        self.sampled.add(fired, np.arange(len(fired.value)), bounds)
        self.cofiring.add(code, counted_CT, self.n_contexts)
        self._keep(tokens_CT, documents_CT, counted_CT)
        self.n_contexts += len(tokens_CT)
        self.n_tokens += int(counted_CT.sum())

    def _keep(self, *columns_CT: NDArray) -> None:
        if not self.spools:
            kinds = zip(Contexts._fields, (np.int32, np.int32, bool), strict=True)
            row = columns_CT[0].shape[1:]
            self.spools = tuple(Spool(self.folder / name, kind, row) for name, kind in kinds)
        for spool, column_CT in zip(self.spools, columns_CT, strict=True):
            spool.append(column_CT)

    def _count(self, fired: Firings) -> None:
        size_N = np.abs(fired.value)
        self.fired_P += np.bincount(fired.pole, minlength=self.n_poles)
        self.sum_P += np.bincount(fired.pole, size_N, minlength=self.n_poles)
        if len(first := heads(fired.pole)):
            pole_G, largest_G = fired.pole[first], np.maximum.reduceat(size_N, first)
            self.max_P[pole_G] = np.maximum(self.max_P[pole_G], largest_G)
        self.histogram.add(fired.pole, bin_of(fired.value), fired.value)

    def result(self) -> Statistics:
        """The statistics of all chunks so far."""
        return Statistics(
            fired=self.fired_P,
            absolute_sum=self.sum_P,
            max=self.max_P,
            histogram=self.histogram,
            seen=self.seen_V,
            tokens=self.tokens,
            top=self.top.result(),
            sampled=self.sampled.result(),
            cofiring=self.cofiring,
            contexts=Contexts(*(spool.array() for spool in self.spools)),
            n_tokens=self.n_tokens,
        )


def _size(rows: Firings | Examples) -> NDArray:
    return np.abs(rows.value)
