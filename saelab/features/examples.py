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
    """S examples with N pairs together."""

    feature: NDArray
    """[S] feature"""
    context: NDArray
    """[S] number of the context"""
    position: NDArray
    """[S] position of the peak"""
    peak: NDArray
    """[S] the value of largest size"""
    starts: NDArray
    """[S+1] example s owns pairs starts[s] to starts[s+1] of the next two"""
    positions: NDArray
    """[N] where the feature fired"""
    values: NDArray
    """[N] its values there"""

    def take(self, index: NDArray) -> "Examples":
        """The examples of those numbers, in that order."""
        counts = self.starts[index + 1] - self.starts[index]
        starts = np.concatenate([[0], np.cumsum(counts)])
        # Pair n of the result is n plus how far its example has moved.
        pairs = np.repeat(self.starts[index] - starts[:-1], counts) + np.arange(starts[-1])
        of_examples = [column[index] for column in self[:4]]
        return Examples._make([*of_examples, starts, self.positions[pairs], self.values[pairs]])


def firings(code: Code, tokens_CT: NDArray, counted_CT: NDArray, first_context: int) -> Firings:
    """What fired in a chunk of whole contexts coded token by token, at positions that count.

    code: of the C x T tokens tokens_CT, context after context. first_context: number of the chunk's
    first context.
    """
    code, length = code.to("cpu"), tokens_CT.shape[1]
    where_N, value_N = code.tokens.numpy(), code.values.float().numpy()
    kept = np.flatnonzero(counted_CT.reshape(-1)[where_N] & (value_N != 0))
    feature_N = code.features.numpy()[kept]
    # A stable sort of 16-bit keys is numpy's radix sort, about ten times as fast as a comparison
    # sort.
    short = code.n_features <= 2**16
    order = np.argsort(feature_N.astype(np.uint16) if short else feature_N, kind="stable")
    kept = kept[order]
    where_N = where_N[kept]
    return Firings(
        feature=feature_N[order],
        context=first_context + where_N // length,
        position=where_N % length,
        token=tokens_CT.reshape(-1)[where_N],
        value=value_N[kept],
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
    largest_N = np.flatnonzero(size_N == largest_S[example_N])
    # Several positions may reach the largest value; `unique` gives the first of each example.
    peak_S = largest_N[np.unique(example_N[largest_N], return_index=True)[1]]
    positions = fired.position.astype(np.int32)
    return Examples(
        feature=fired.feature[heads],
        context=fired.context[heads],
        position=positions[peak_S],
        peak=fired.value[peak_S],
        starts=starts,
        positions=positions,
        values=fired.value,
    )


def join(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one after the other."""
    offsets = np.cumsum([0, *(len(part.values) for part in parts)])
    starts = [part.starts[:-1] + offset for part, offset in zip(parts, offsets, strict=False)]
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)]
    columns[4] = np.concatenate([*starts, offsets[-1:]])
    return Examples(*columns)


def place_in_group(group_N: NDArray) -> NDArray:
    """Each entry's place, from 0, among the entries of its group; equal groups stand together, in
    ascending order.

    >>> place_in_group(np.array([3, 3, 3, 7, 7]))
    array([0, 1, 2, 0, 1])
    """
    # In a sorted array searchsorted finds the first of equal entries: where the group begins.
    return np.arange(len(group_N)) - np.searchsorted(group_N, group_N)


def best(feature_S: NDArray, score_S: NDArray, context_S: NDArray, n: int) -> NDArray:
    """Numbers of the n best-scored entries of each feature, by feature, then falling score; ties to
    the lower context."""
    order = np.lexsort((context_S, -score_S, feature_S))
    return order[place_in_group(feature_S[order]) < n]


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

    def add(self, offered: Examples, score_S: NDArray) -> None:
        """Offer examples with their scores [S]."""
        better = np.flatnonzero(score_S > self.bar_F[offered.feature])
        part = offered.take(better)
        self.parts.append(part)
        self.scores.append(score_S[better])
        self.buffered += len(part.values)
        if self.buffered > BUFFERED:
            self._compress()

    def _compress(self) -> None:
        everything, score_S = join(self.parts), np.concatenate(self.scores)
        kept = best(everything.feature, score_S, everything.context, self.n)
        self.parts, self.scores = [everything.take(kept)], [score_S[kept]]
        feature_S = everything.feature[kept]
        # Only a feature that holds n examples turns newcomers away; its bar is the last, its worst.
        last = place_in_group(feature_S) == self.n - 1
        self.bar_F[feature_S[last]] = score_S[kept][last]
        # Half, so that what must stay cannot trigger a compression per chunk.
        self.buffered = len(self.parts[0].values) // 2

    def result(self) -> tuple[Examples, NDArray]:
        """The kept examples, by feature, then falling score, and their scores."""
        if not self.parts:
            none, no_values = np.zeros(0, np.int64), np.zeros(0, np.float32)
            starts, positions = np.zeros(1, np.int64), none.astype(np.int32)
            return Examples(none, none, none, no_values, starts, positions, no_values), no_values
        self._compress()
        return self.parts[0], self.scores[0]
