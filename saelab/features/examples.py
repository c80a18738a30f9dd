"""Examples: a feature in a context with all its activations there; pools keep the best few per
feature in bounded memory.

Shapes: F features, N pairs (a feature fired at a position), S examples; T positions per context.
All arrays are numpy.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code

BUFFERED = 4_000_000  # pairs a pool holds before it drops all but the best


class Firings(NamedTuple):
    """The pairs of a chunk that fired (value != 0) at counted positions, by feature, then context,
    then position; all [N]."""

    feature: NDArray
    context: NDArray
    position: NDArray
    token: NDArray
    value: NDArray  # float32


class Examples(NamedTuple):
    """S examples. feature, context, position (of the peak), peak (value of the largest |value|)
    [S].

    Example s owns pairs starts[s] to starts[s+1] of positions and values [N].
    """

    feature: NDArray
    context: NDArray
    position: NDArray
    peak: NDArray
    starts: NDArray
    positions: NDArray
    values: NDArray

    def take(self, index: NDArray) -> "Examples":
        """The examples of those numbers, in that order."""
        counts = self.starts[index + 1] - self.starts[index]
        starts = np.concatenate([[0], np.cumsum(counts)])
        pairs = np.repeat(self.starts[index] - starts[:-1], counts) + np.arange(starts[-1])
        columns = [column[index] for column in self[:4]]
        return Examples._make([*columns, starts, self.positions[pairs], self.values[pairs]])


def firings(code: Code, tokens_CT: NDArray, first_context: int) -> Firings:
    """What fired in a chunk of whole contexts coded token by token; position 0 is left out.

    code: of the C x T tokens tokens_CT, context after context. first_context: number of the chunk's
    first context.
    """
    length = tokens_CT.shape[1]
    where_N, value_N = code.tokens.numpy(), code.values.float().numpy()
    kept = np.flatnonzero((where_N % length != 0) & (value_N != 0))
    feature_N = code.features.numpy()[kept]
    # A stable sort of 16-bit keys is numpy's radix sort, about ten times as fast as a comparison
    # sort.
    order = np.argsort(
        feature_N.astype(np.uint16) if code.n_features <= 2**16 else feature_N, kind="stable"
    )
    kept = kept[order]
    where_N = where_N[kept]
    token_N = tokens_CT.reshape(-1)[where_N]
    return Firings(
        feature_N[order],
        first_context + where_N // length,
        where_N % length,
        token_N,
        value_N[kept],
    )


def examples(fired: Firings) -> Examples:
    """One example per feature and context in which it fired; of equal peaks the first position
    counts."""
    changes = (np.diff(fired.feature) != 0) | (np.diff(fired.context) != 0)
    heads = np.concatenate([[0], np.flatnonzero(changes) + 1])[: len(fired.value)]
    starts = np.append(heads, len(fired.value))
    size_N = np.abs(fired.value)
    largest_S = np.maximum.reduceat(size_N, heads) if len(heads) else size_N[:0]
    example_N = np.repeat(np.arange(len(heads)), np.diff(starts))
    at_N = np.flatnonzero(size_N == largest_S[example_N])
    peak_S = at_N[np.unique(example_N[at_N], return_index=True)[1]]
    positions = fired.position.astype(np.int32)
    return Examples(
        fired.feature[heads],
        fired.context[heads],
        positions[peak_S],
        fired.value[peak_S],
        starts,
        positions,
        fired.value,
    )


def join(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one after the other."""
    offsets = np.cumsum([0, *(len(part.values) for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    return Examples._make([*columns[:4], np.concatenate([*starts, offsets[-1:]]), *columns[5:]])


def best(feature_S: NDArray, score_S: NDArray, context_S: NDArray, n: int) -> NDArray:
    """Numbers of the n best-scored entries of each feature, by feature, then falling score; ties to
    the lower context."""
    order = np.lexsort((context_S, -score_S, feature_S))
    sorted_S = feature_S[order]
    rank_S = np.arange(len(order)) - np.searchsorted(sorted_S, sorted_S)
    return order[rank_S < n]


def fingerprints(feature_S: NDArray, context_S: NDArray, seed: int) -> NDArray:
    """A number in [0, 1) per (feature, context), the same whatever the chunking: splitmix64
    (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = (context_S.astype(np.uint64) << np.uint64(32)) + feature_S.astype(np.uint64)
        x += np.uint64(seed + 1) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((x ^ (x >> np.uint64(31))) >> np.uint64(11)) / 2.0**53


class Pool:
    """The n examples of highest score of each feature, over any number of chunks whose contexts
    ascend."""

    def __init__(self, n: int, n_features: int) -> None:
        self.n = n
        self.bar_F = np.full(n_features, -np.inf)  # what a newcomer must beat
        self.parts: list[Examples] = []
        self.scores: list[NDArray] = []
        self.buffered = 0

    def add(self, found: Examples, score_S: NDArray) -> None:
        """Offer examples with their scores [S]."""
        better = np.flatnonzero(score_S > self.bar_F[found.feature])
        part = found.take(better)
        self.parts.append(part)
        self.scores.append(score_S[better])
        self.buffered += len(part.values)
        if self.buffered > BUFFERED:
            self._compress()

    def _compress(self) -> None:
        found, score_S = join(self.parts), np.concatenate(self.scores)
        kept = best(found.feature, score_S, found.context, self.n)
        self.parts, self.scores = [found.take(kept)], [score_S[kept]]
        last = np.append(np.diff(found.feature[kept]) != 0, True)
        full = last & (
            np.bincount(found.feature[kept], minlength=len(self.bar_F))[found.feature[kept]]
            == self.n
        )
        self.bar_F[found.feature[kept][full]] = score_S[kept][full]
        self.buffered = (
            len(self.parts[0].values) // 2
        )  # so that what must stay cannot trigger a compression per chunk

    def result(self) -> tuple[Examples, NDArray]:
        """The kept examples, by feature, then falling score, and their scores."""
        if not self.parts:
            empty = np.zeros(0, np.int64)
            values = np.zeros(0, np.float32)
            return Examples(
                empty, empty, empty, values, np.zeros(1, np.int64), empty.astype(np.int32), values
            ), values
        self._compress()
        return self.parts[0], self.scores[0]
