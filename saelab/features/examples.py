"""Examples: a firing in a context with all that its feature fires there; pools keep the best few
per pole in bounded memory.

A pole is a feature, or one sign of a signed feature: 2 x feature + (value < 0). Shapes: P poles, N
pairs (a feature fired at a position), S examples, C contexts of T positions. Arrays are numpy.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code
from saelab.features.groups import best, heads, spans, stable_order

POLES = 4096  # of a block
BUFFERED = 500_000  # examples and their pairs that a pool takes in before it drops the worst
WINDOW = 12  # tokens up to a firing that near-duplicates share


class Firings(NamedTuple):
    """The pairs of a chunk that fired (value != 0) at counted positions, by pole, then context,
    then position; all [N]."""

    pole: NDArray
    context: NDArray
    position: NDArray
    token: NDArray
    value: NDArray
    """float32"""
    window: NDArray
    """uint64, a digest of the WINDOW tokens that end here"""


class Examples(NamedTuple):
    """S examples with N pairs together."""

    pole: NDArray
    """[S] pole"""
    context: NDArray
    """[S] number of the context"""
    position: NDArray
    """[S] position of the firing"""
    value: NDArray
    """[S] its value"""
    window: NDArray
    """[S] digest of the tokens up to it"""
    copies: NDArray
    """[S] how many near-duplicates it stands for, itself included"""
    n_pairs: NDArray
    """[S] how many of the next two are its, one example after the other"""
    positions: NDArray
    """[N] where the pole fired in the context"""
    values: NDArray
    """[N] its values there"""

    def take(self, index: NDArray) -> "Examples":
        """The examples of those numbers, in that order."""
        first_S = np.cumsum(self.n_pairs, dtype=np.int64) - self.n_pairs
        pairs = spans(self.n_pairs[index], first_S[index])
        of_examples = [column[index] for column in self[:7]]
        return Examples._make([*of_examples, self.positions[pairs], self.values[pairs]])

    def cut(self, poles: NDArray) -> list["Examples"]:
        """The examples between each two poles, as views; poles ascend."""
        at = np.searchsorted(self.pole, poles)
        pairs = np.append(0, np.cumsum(self.n_pairs, dtype=np.int64))[at]
        return [
            Examples(
                *(c[at[i] : at[i + 1]] for c in self[:7]),
                *(c[pairs[i] : pairs[i + 1]] for c in self[7:]),
            )
            for i in range(len(poles) - 1)
        ]

    def without_pairs(self, bare_S: NDArray) -> "Examples":
        """The same, those of a mask without their pairs."""
        kept_N = np.repeat(~bare_S, self.n_pairs)
        pairs = {"positions": self.positions[kept_N], "values": self.values[kept_N]}
        return self._replace(n_pairs=np.where(bare_S, 0, self.n_pairs), **pairs)


NONE = Examples(
    *(np.zeros(0, kind) for kind in ("i4", "i4", "i4", "f4", "u8", "i4", "i4", "i4", "f4"))
)


def firings(
    code: Code, tokens_CT: NDArray, counted_CT: NDArray, first_context: int, signed: bool
) -> Firings:
    """What fired in a chunk of whole contexts coded token by token, at positions that count.

    code: of the C x T tokens tokens_CT, context after context. first_context: number of the chunk's
    first context. signed: whether the signs of a feature are two poles.
    """
    code, length = code.to("cpu"), tokens_CT.shape[1]
    where_N, value_N = code.tokens.numpy(), code.values.float().numpy()
    kept = np.flatnonzero(counted_CT.reshape(-1)[where_N] & (value_N != 0))
    pole_N = code.features.numpy()[kept]
    if signed:
        pole_N = 2 * pole_N + (value_N[kept] < 0)
    order = stable_order(pole_N, code.n_features * (1 + signed))
    kept = kept[order]
    where_N = where_N[kept]
    return Firings(
        pole=pole_N[order].astype(np.int32),
        context=(first_context + where_N // length).astype(np.int32),
        position=(where_N % length).astype(np.int32),
        token=tokens_CT.reshape(-1)[where_N].astype(np.int32),
        value=value_N[kept],
        window=windows(tokens_CT).reshape(-1)[where_N],
    )


def windows(tokens_CT: NDArray) -> NDArray:
    """[C, T] uint64: a digest of the WINDOW tokens that end at each position."""
    digest_CT = np.zeros(tokens_CT.shape, np.uint64)
    token_CT = mixed(tokens_CT.astype(np.uint64) + np.uint64(1))
    with np.errstate(over="ignore"):
        for back in range(min(WINDOW, tokens_CT.shape[1])):
            weight = mixed(np.uint64(back + 1)) | np.uint64(1)
            digest_CT[:, back:] += token_CT[:, : tokens_CT.shape[1] - back] * weight
    return digest_CT


def mixed(x: Any) -> Any:
    """uint64, one or an array, scattered over 64 bits: splitmix64 (Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        x = x + np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def fingerprints(pole_S: NDArray, context_S: NDArray, position_S: NDArray, seed: int) -> NDArray:
    """A number in [0, 1) per (pole, context, position), the same whatever the chunking."""
    with np.errstate(over="ignore"):
        place_S = (context_S.astype(np.uint64) << np.uint64(20)) + position_S.astype(np.uint64)
        x = place_S ^ mixed(pole_S.astype(np.uint64) ^ mixed(np.uint64(seed)))
    return (mixed(x) >> np.uint64(11)) / 2.0**53


def groups(fired: Firings) -> NDArray:
    """[G+1]: where the firings of a pole in a context begin, and the end."""
    return np.append(heads(fired.pole, fired.context), len(fired.value))


def peaks(fired: Firings, bounds: NDArray) -> NDArray:
    """[G]: the firing of largest |value| in each group, of equal ones the first."""
    size_N = np.abs(fired.value)
    if not len(size_N):
        return np.zeros(0, np.int64)
    largest_G = np.maximum.reduceat(size_N, bounds[:-1])
    largest_N = np.flatnonzero(size_N == np.repeat(largest_G, np.diff(bounds)))
    group_N = np.searchsorted(bounds, largest_N, side="right") - 1
    return largest_N[heads(group_N)]


def examples(fired: Firings, index: NDArray, bounds: NDArray) -> Examples:
    """The examples of firings by their number; bounds: as `groups` gives them."""
    group_S = np.searchsorted(bounds, index, side="right") - 1
    count_S = np.diff(bounds)[group_S]
    pairs = spans(count_S, bounds[group_S])
    return Examples(
        pole=fired.pole[index],
        context=fired.context[index],
        position=fired.position[index],
        value=fired.value[index],
        window=fired.window[index],
        copies=np.ones(len(index), np.int32),
        n_pairs=count_S.astype(np.int32),
        positions=fired.position[pairs],
        values=fired.value[pairs],
    )


def join(parts: Sequence[Examples]) -> Examples:
    """The examples of all parts, one after the other."""
    return Examples._make(np.concatenate(column) for column in zip(*parts, strict=True))


def merged(all_S: Examples) -> Examples:
    """One example per pole and window: that of largest |value|, of equal ones the first."""
    order = np.lexsort((all_S.context, -np.abs(all_S.value), all_S.window, all_S.pole))
    first = heads(all_S.pole[order], all_S.window[order])
    if not len(first):
        return all_S
    copies = np.add.reduceat(all_S.copies[order], first)
    return all_S.take(order[first])._replace(copies=copies.astype(np.int32))


class Pool:
    """The n examples of highest score of each pole, over any number of chunks whose contexts
    ascend.

    score: of examples [S] or firings [N]. merge: whether examples with the same tokens up to the
    firing are one, which counts its copies; those that come when n better ones are there already
    are not counted. What is kept lies in blocks of POLES poles, of which one at a time is sorted
    anew, so that nothing large is held twice.
    """

    def __init__(
        self, n: int, n_poles: int, score: Callable[..., NDArray], merge: bool = False
    ) -> None:
        self.n, self.score, self.merge = n, score, merge
        self.bar_P = np.full(n_poles, -np.inf)  # what a newcomer must beat
        self.blocks = [NONE] * -(-n_poles // POLES)
        self.parts: list[Examples] = []
        self.buffered = self.held = 0

    def add(self, fired: Firings, index: NDArray, bounds: NDArray) -> None:
        """Offer firings by their ascending number."""
        offered = Firings._make(column[index] for column in fired)
        score_N = self.score(offered)
        better = np.flatnonzero(score_N > self.bar_P[offered.pole])
        if not self.merge:
            # Each brings all pairs of its context along: of a dense feature, more than fit.
            better = better[best(offered.pole[better], score_N[better], self.n)]
        part = examples(fired, index[better], bounds)
        self.parts.append(part)
        self.buffered += len(part.value) + len(part.values)
        if self.buffered > max(BUFFERED, self.held // 8):
            self._compress()

    def _compress(self) -> None:
        parts, self.parts = self.parts, []
        cuts = np.arange(len(self.blocks) + 1) * POLES
        slices = [part.cut(cuts) for part in parts]
        for number, block in enumerate(self.blocks):
            self.blocks[number] = self._best(join([block, *(cut[number] for cut in slices)]))
        self.held = sum(len(block.value) + len(block.values) for block in self.blocks)
        self.buffered = 0

    def _best(self, block: Examples) -> Examples:
        """The n best of each pole of a block; raises their bars."""
        block = merged(block) if self.merge else block
        score_S = self.score(block)
        kept = best(block.pole, score_S, self.n, block.context, block.position)
        pole_S = block.pole[kept]
        # Only a pole that holds n examples turns newcomers away; its bar is the last, its worst.
        last = np.flatnonzero(np.append(np.diff(pole_S) != 0, True)[: len(pole_S)])
        full = np.diff(last, prepend=-1) == self.n
        self.bar_P[pole_S[last[full]]] = score_S[kept][last[full]]
        return block.take(kept)

    def result(self) -> list[Examples]:
        """The kept examples, by pole, then falling score, in blocks of POLES poles."""
        self._compress()
        return self.blocks
