"""Budgets over the whole batch, and levels: one pool of candidates, exact values, one threshold.

Shapes: B tokens, F features, N pairs of the pool.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import torch

from saelab.code import Code
from saelab.kernels.cpu import sparse
from saelab.kernels.cpu.screen.candidates import bound_above, count_above, histogram, list_above
from saelab.kernels.cpu.screen.exact import score_pairs
from saelab.kernels.cpu.screen.screen import Problem, Tile, shift_of, tiles
from saelab.kernels.cpu.screen.winners import code_of, sides_of, tally

_ROWS = 4096  # tokens screened at once
# Candidates asked for, in multiples of the budget: at first, and where those were not enough.
_SPARES = (2.5, 8.0)
_SAMPLE = 1 << 20  # entries of the first tile that predict the threshold
_BLOCK = 1 << 20  # pairs scored at once where nothing is screened


class _Pool(NamedTuple):
    """Candidate pairs."""

    keys: np.ndarray
    """[N] their upper bounds, as `candidates` describes keys"""
    tokens: np.ndarray
    """[N] token of each"""
    features: np.ndarray
    """[N] feature of each"""


def _listed(tile: Tile, theta: int, first_token: int) -> _Pool:
    counts = np.empty(len(tile.keys), np.int64)
    count_above(tile.keys, theta, counts)
    ends = np.cumsum(counts)
    pool = _Pool(*(np.empty(ends[-1], np.int64) for _ in _Pool._fields))
    list_above(tile.keys, theta, ends, tile.first, tile.step, *pool)
    pool.tokens[:] += first_token
    return pool


def _gather(
    problem: Problem, dtype: torch.dtype, strided: bool, theta_of: Callable[[Tile], int]
) -> tuple[int, _Pool]:
    """Every pair whose key exceeds a threshold, which the first tile determines; raises
    OverflowError as `tiles` does."""
    theta, parts = None, []
    for first in range(0, len(problem.x), _ROWS):
        rows = slice(first, first + _ROWS)
        grad = None if problem.grad is None else problem.grad[rows]
        for tile in tiles(problem._replace(x=problem.x[rows], grad=grad), dtype, strided=strided):
            # One threshold for all tiles: what is not listed then has a bound of at most that one.
            theta = theta_of(tile) if theta is None else theta
            parts.append(_listed(tile, theta, first))
    return theta or 0, _Pool(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def _level(counts: np.ndarray, rank: float, shift: int) -> int:
    """The greatest threshold that at least `rank` of the histogram's keys exceed; 0 if there are
    not so many."""
    reached = np.flatnonzero(np.cumsum(counts[::-1]) >= rank)
    if not len(reached):
        return 0
    bin_ = int(len(counts) - 1 - reached[0])
    # One below the least key of that bin, because keys must exceed a threshold to pass.
    return max((bin_ << (16 - shift)) - 1, 0)


def _scored(
    problem: Problem, pool: _Pool, which: np.ndarray, values: np.ndarray, scores: np.ndarray
) -> None:
    score_pairs(sides_of(problem), pool.tokens, pool.features, which, values, scores)


def _best(pool: _Pool, scores: np.ndarray, total: int, n_features: int) -> np.ndarray:
    """The numbers of the `total` pairs with the highest positive scores, ties to the lowest token,
    then feature."""
    # The ties at the worst winner's score are settled apart, because `partition` picks any of them.
    positive = np.flatnonzero(scores > 0)
    if len(positive) <= total:
        return positive
    worst = np.partition(scores[positive], len(positive) - total)[len(positive) - total]
    above, ties = positive[scores[positive] > worst], positive[scores[positive] == worst]
    order = np.argsort(pool.tokens[ties] * n_features + pool.features[ties])
    return np.concatenate([above, ties[order[: total - len(above)]]])


def _best_of(
    problem: Problem, pool: _Pool, total: int, shift: int
) -> tuple[np.ndarray, np.ndarray, float]:
    """(numbers of the best pairs of the pool, values of all that were scored, the worst winner's
    score; 0 if too few)."""
    values, scores = np.zeros(len(pool.keys)), np.zeros(len(pool.keys))
    # First score about as many pairs as win, those of highest bound. The worst of these winners can
    # only be replaced by better ones, so of the other pairs only those whose bound exceeds its
    # score need scoring at all.
    level = _level(np.bincount(pool.keys >> (16 - shift), minlength=1 << 15), total, shift)
    _scored(problem, pool, np.flatnonzero(pool.keys > level), values, scores)
    best = _best(pool, scores, total, len(problem.W))
    worst = scores[best].min() if len(best) == total else 0.0
    bounds = ((pool.keys + 1) << shift).astype(np.int32).view(np.float32)
    # Not `bounds > worst`: a bound that overflowed to NaN may still win.
    rest = np.flatnonzero((pool.keys <= level) & ~(bounds <= worst))
    _scored(problem, pool, rest, values, scores)
    best = _best(pool, scores, total, len(problem.W))
    return best, values, scores[best].min() if len(best) == total else 0.0


def _key_below(score: float, shift: int) -> int:
    """The greatest threshold whose `bound_above` does not exceed a score: with it, no pair left out
    reaches the score."""
    return max(int(np.nextafter(np.float32(score), np.float32(0)).view(np.int32) >> shift) - 1, 0)


def _grid(n_tokens: int, n_features: int) -> Iterator[_Pool]:
    """All pairs, block by block."""
    width = max(1, _BLOCK // n_tokens)
    for first in range(0, n_features, width):
        features = np.arange(first, min(first + width, n_features))
        tokens = np.repeat(np.arange(n_tokens), len(features))
        yield _Pool(np.zeros(len(tokens), np.int64), tokens, np.tile(features, n_tokens))


def _exhaust(problem: Problem, total: int) -> Code:
    """The best pairs from the exact score of every pair."""
    tokens = features = np.empty(0, np.int64)
    values = scores = np.empty(0)
    for pool in _grid(len(problem.x), len(problem.W)):
        more_values, more_scores = np.empty(len(pool.keys)), np.empty(len(pool.keys))
        _scored(problem, pool, np.arange(len(pool.keys)), more_values, more_scores)
        tokens = np.concatenate([tokens, pool.tokens])
        features = np.concatenate([features, pool.features])
        values = np.concatenate([values, more_values])
        scores = np.concatenate([scores, more_scores])
        # Only the best so far stay, so that no more than a block and the budget are held at once.
        best = _best(_Pool(tokens, tokens, features), scores, total, len(problem.W))
        tokens, features, values, scores = tokens[best], features[best], values[best], scores[best]
    return _code(tokens, features, values, problem)


def over_batch(problem: Problem, total: int, dtype: torch.dtype) -> Code:
    """The `total` best pairs of the batch, non-zero ones only.

    Where the threshold that the first tile predicts leaves too few candidates, the worst winner
    among them tells one that does not.
    """
    shift, known = shift_of(dtype), None
    tally["asked"] += len(problem.x)
    for spare in _SPARES:

        def threshold(tile: Tile, spare: float = spare, known: int | None = known) -> int:
            if known is not None:
                return known
            # The strided first tile is a sample of all features, its rows one of all tokens: so
            # many of its keys should pass that `spare` times the budget do in all.
            stride = max(1, tile.keys.size // _SAMPLE)
            share = tile.n * len(tile.keys[::stride]) / (len(problem.W) * len(problem.x))
            return _level(histogram(tile.keys, stride, shift), spare * total * share, shift)

        try:
            theta, pool = _gather(problem, dtype, True, threshold)
        except OverflowError:
            break
        best, values, worst = _best_of(problem, pool, total, shift)
        # The certificate: every pair not listed stays below what all winners reach.
        if theta == 0 or bound_above(theta, shift) <= worst:
            tally["certified"] += len(problem.x) if spare == _SPARES[0] else 0
            return _code(pool.tokens[best], pool.features[best], values[best], problem)
        known = _key_below(worst, shift) if worst > 0 else None
    return _exhaust(problem, total)


def over_level(
    problem: Problem, level_F: np.ndarray, lowest_F: np.ndarray, dtype: torch.dtype
) -> Code:
    """Every pair whose size exceeds lowest_F, with value 0 where it does not exceed level_F (both
    [F] float64)."""
    # The offset is subtracted in float32 from bounds that are themselves rounded: lowered by 2^-16
    # of its size, it cannot round a pair away. What passes too much falls to its exact score.
    margin_F = np.where(lowest_F > 0, 1 - 2.0**-16, 1 + 2.0**-16)
    screened = problem._replace(offset=(lowest_F * margin_F).astype(np.float32))
    try:
        pools = iter([_gather(screened, dtype, False, lambda tile: 0)[1]])
    except OverflowError:
        pools = _grid(len(problem.x), len(problem.W))
    parts = []
    for pool in pools:
        values, scores = np.empty(len(pool.keys)), np.empty(len(pool.keys))
        _scored(problem, pool, np.arange(len(pool.keys)), values, scores)
        kept = np.flatnonzero(scores > lowest_F[pool.features])
        values = np.where(scores > level_F[pool.features], values, 0.0)
        parts.append((pool.tokens[kept], pool.features[kept], values[kept]))
    tokens, features, values = (np.concatenate(column) for column in zip(*parts, strict=True))
    return _code(tokens, features, values, problem)


def _code(tokens: np.ndarray, features: np.ndarray, values: np.ndarray, problem: Problem) -> Code:
    """Pairs in any order, as a Code."""
    order, _ = sparse.sort_by_feature(features, len(problem.W))
    by_token, starts = sparse.sort_by_feature(tokens[order], len(problem.x))
    order = order[by_token]
    return code_of(starts, features[order], values[order].astype(np.float32), len(problem.W))
