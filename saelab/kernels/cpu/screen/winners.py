"""Budgets that belong to tokens or to features: a list of candidates each, exact values,
certificates.

A query is what a budget belongs to, an item what it may pick. Shapes: B tokens, F features.
"""

import math
from collections import Counter
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels.cpu import sparse
from saelab.kernels.cpu.screen.candidates import collect
from saelab.kernels.cpu.screen.exact import Sides, exhaust, fill, rescore
from saelab.kernels.cpu.screen.screen import Problem, buffer, shift_of, tiles

# A list's length, in multiples of what is kept of it when it is full.
_TOKEN_ROOM, _FEATURE_ROOM = 3, 2
# Candidates kept beyond k: k + 64 of them in bfloat16, for SAEs of this width or more.
_SPARE, _FULL_WIDTH = 64, 768
_AGAIN = 8  # how many times longer the second attempt's lists are
_FEW = 8  # so many queries are cheaper to settle from all exact scores than from a second screen
tally: Counter[str] = Counter()  # queries "asked", and of these "certified" by the first screen


def sides_of(problem: Problem, by_feature: bool = False) -> Sides:
    """What exact scores are computed from, with tokens or features as queries."""
    x, W, b = problem.x.numpy(), problem.W.numpy(), problem.b.double().numpy()
    none = torch.zeros(1, 1)
    grad, W_dec = (none if tensor is None else tensor for tensor in (problem.grad, problem.W_dec))
    zeros, boost_x, boost_w = np.zeros(len(x)), grad.numpy(), W_dec.numpy()
    if by_feature:
        return Sides(W, x, b, zeros, boost_w, boost_x, problem.signed, problem.beta)
    return Sides(x, W, zeros, b, boost_x, boost_w, problem.signed, problem.beta)


def code_of(
    starts: np.ndarray, features_N: np.ndarray, values_N: np.ndarray, n_features: int
) -> Code:
    """A Code over the same memory."""
    return Code(
        torch.from_numpy(starts),
        torch.from_numpy(features_N),
        torch.from_numpy(values_N),
        n_features,
    )


class Winners:
    """What each query has won: items and values from its place on, and how many (-1: not
    certified)."""

    def __init__(self, budgets: np.ndarray) -> None:
        self.budgets = budgets
        self.places = np.cumsum(budgets) - budgets
        self.items = np.empty(budgets.sum(), np.int64)
        self.values = np.empty(budgets.sum(), np.float32)
        self.founds = np.full(len(budgets), -1)

    @property
    def failed(self) -> np.ndarray:
        """The queries whose winners are not certified."""
        return np.flatnonzero(self.founds < 0)

    def take(self, queries: np.ndarray, other: "Winners") -> None:
        """Copy the certified ones of `other`, whose query i is our queries[i]."""
        for i in np.flatnonzero(other.founds >= 0):
            ours, theirs, n = self.places[queries[i]], other.places[i], other.founds[i]
            self.items[ours : ours + n] = other.items[theirs : theirs + n]
            self.values[ours : ours + n] = other.values[theirs : theirs + n]
            self.founds[queries[i]] = n

    def pairs(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(queries, items, values) of all non-zero winners."""
        rank = np.arange(len(self.items)) - np.repeat(self.places, self.budgets)
        kept = (rank < np.repeat(self.founds, self.budgets)) & (self.values != 0)
        return (
            np.repeat(np.arange(len(self.budgets)), self.budgets)[kept],
            self.items[kept],
            self.values[kept],
        )


def _settle(
    problem: Problem, first: Winners, again: Callable[[np.ndarray], Winners], by_feature: bool
) -> Winners:
    """Redo what is not certified: with a sharper screen and longer lists, then from the exact score
    of every item."""
    tally.update(asked=len(first.founds), certified=len(first.founds) - len(first.failed))
    if len(failed := first.failed) > _FEW:
        first.take(failed, again(failed))
    if len(failed := first.failed):
        where = (first.budgets, first.places, first.items, first.values, first.founds)
        exhaust(sides_of(problem, by_feature), failed, *where)
    return first


def _sample_size(keep: int, n_tiles: int) -> int:
    """How many of a sample tile's best entries let at least `keep` of all pass: two standard
    deviations above the mean.
    """
    # The best `keep` of all items fall into n_tiles tiles about as a Poisson draw: variance = mean.
    expected = keep / n_tiles
    return int(np.ceil(expected + 2.2 * np.sqrt(expected)))


def _screen_tokens(
    problem: Problem, k: int, keep: int, dtype: torch.dtype, sample: bool
) -> Winners:
    """Winners of every token from one screening; `sample`: the first tile predicts thresholds."""
    n_tokens = len(problem.x)
    won = Winners(np.full(n_tokens, k))
    starts = np.arange(n_tokens) * (_TOKEN_ROOM * keep)
    lists = buffer("lists", (n_tokens * _TOKEN_ROOM * keep,), torch.int64).numpy()
    counts, thetas = np.zeros(n_tokens, np.int64), np.zeros(n_tokens, np.int64)
    keeps = np.full(n_tokens, keep)
    try:
        for tile in tiles(problem, dtype, strided=True):
            # A threshold guessed from the first tile spares the lists most of the others' entries.
            # If it was too high, `rescore` finds too few candidates and does not certify.
            rank = _sample_size(keep, tile.step) if sample and tile.first == 0 else 0
            how = (starts, keeps, _TOKEN_ROOM, np.full(n_tokens, rank))
            collect(tile.keys, tile.first, tile.step, *how, counts, thetas, lists)
    except OverflowError:  # bounds cannot hold such numbers: nothing is certified
        return won
    where = (starts, counts, thetas, lists, shift_of(dtype), won.budgets, won.places)
    rescore(sides_of(problem), *where, won.items, won.values, won.founds)
    return won


def _kept(k: int, width: int, dtype: torch.dtype) -> int:
    """How many candidates a list keeps at least, so that bounds reaching the k-th score are in it.

    What a bound is too high by, in standard deviations of the scores, grows with the root of the
    width; in float32 it is next to nothing.
    """
    spare = k + _SPARE
    if dtype == torch.float32:
        return k + spare // 4
    return k + math.ceil(spare * min(1.0, math.sqrt(width / _FULL_WIDTH)))


def over_tokens(problem: Problem, k: int, dtype: torch.dtype) -> Code:
    """The k best pairs of every token."""
    n_tokens, n_features = len(problem.x), len(problem.W)
    keep = min(_kept(k, problem.x.shape[1], dtype), n_features)

    def again(tokens: np.ndarray) -> Winners:
        grad = None if problem.grad is None else problem.grad[tokens]
        part = problem._replace(x=problem.x[tokens], grad=grad)
        return _screen_tokens(part, k, min(_AGAIN * (k + _SPARE), n_features), torch.float32, False)

    won = _settle(problem, _screen_tokens(problem, k, keep, dtype, True), again, False)
    fill(won.founds, k, won.items, won.values)
    return code_of(np.arange(n_tokens + 1) * k, won.items, won.values, n_features)


def _of_features(problem: Problem, which: np.ndarray | slice) -> Problem:
    W_dec = None if problem.W_dec is None else problem.W_dec[which]
    return problem._replace(W=problem.W[which], b=problem.b[which], W_dec=W_dec)


def _screen_features(
    problem: Problem, budgets: np.ndarray, margin: int, dtype: torch.dtype
) -> Winners:
    """Winners of every feature; a tile holds all tokens, so its features finish inside it."""
    won = Winners(budgets)
    room = np.minimum(budgets + np.maximum(margin, budgets // 2), len(problem.x))
    keeps = np.where(budgets > 0, room, 0)
    starts = _FEATURE_ROOM * (np.cumsum(keeps) - keeps)
    lists = buffer("lists", (_FEATURE_ROOM * int(keeps.sum()),), torch.int64).numpy()
    counts, thetas = np.zeros(len(budgets), np.int64), np.zeros(len(budgets), np.int64)
    try:
        for tile in tiles(problem, dtype, by_feature=True, strided=True):
            mine = slice(tile.first, None, tile.step)
            begin, keep, count, theta = (
                np.ascontiguousarray(a[mine]) for a in (starts, keeps, counts, thetas)
            )
            collect(tile.keys, 0, 1, begin, keep, _FEATURE_ROOM, keep, count, theta, lists)
            counts[mine], thetas[mine] = count, theta
    except OverflowError:
        return won
    where = (starts, counts, thetas, lists, shift_of(dtype), budgets, won.places)
    rescore(sides_of(problem, True), *where, won.items, won.values, won.founds)
    return won


def over_features(problem: Problem, budget: Tensor, dtype: torch.dtype) -> Code:
    """The budget[f] best pairs of every feature, non-zero ones only."""
    budgets, n_features = budget.numpy(), len(problem.W)

    def again(features: np.ndarray) -> Winners:
        return _screen_features(
            _of_features(problem, features), budgets[features], _AGAIN * 16, torch.float32
        )

    features, tokens, values = _settle(
        problem, _screen_features(problem, budgets, 16, dtype), again, True
    ).pairs()
    order, starts = sparse.sort_by_feature(tokens, len(problem.x))
    return code_of(starts, features[order], values[order], n_features)
