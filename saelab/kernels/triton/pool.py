"""Budgets over the whole batch, and levels: the pairs of all lists in one pool.

Shapes: B tokens, F features, Q queries, N pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels.triton.ladder import code_of, pieces, rungs, tally
from saelab.kernels.triton.screen import Lists, Problem, exact, lists, screen_of

_ABOVE_LEVEL = 256  # pairs of a token that a level is expected to let through, at most
# Candidates of a token that a batch budget of k pairs per token asks for: so many k, and so many.
_BATCH = (4, 64)


def over_level(problem: Problem, level_F: Tensor, lowest_F: Tensor) -> Code:
    """Every pair whose size exceeds lowest_F, with value 0 where it does not exceed level_F."""
    n_tokens, n_features, device = len(problem.x), len(problem.W), problem.x.device
    screen, queries = screen_of(problem), torch.arange(n_tokens, device=device)
    floors = (lowest_F - lowest_F.abs() * 2.0**-20).float()
    parts = []
    for most in rungs(_ABOVE_LEVEL, n_features):
        whole = []
        for rows in pieces(queries, most):
            keep_Q = torch.full_like(rows, most, dtype=torch.int32)
            found = lists(screen.of(rows), keep_Q, most, floors)
            whole.append(found.thetas == 0)
            listed = ((found.items >= 0) & whole[-1][:, None]).nonzero()
            token_N = rows[listed[:, 0]]
            feature_N = found.items[listed[:, 0], listed[:, 1]].long()
            value_N, score_N = exact(problem, token_N, feature_N)
            passing = (score_N > lowest_F[feature_N]).nonzero()[:, 0]
            value_N = torch.where(score_N > level_F[feature_N], value_N, 0)
            parts.append([t[passing] for t in (token_N, feature_N, value_N)])
        queries = queries[~torch.cat(whole)]
        if not len(queries):
            break
    token_N, feature_N, value_N = (torch.cat(column) for column in zip(*parts, strict=True))
    return code_of(problem, token_N, feature_N, value_N)


class _Pool(NamedTuple):
    """Pairs [N] with their values and scores, by falling score, ties to the lowest token, then
    feature; 0 where a score is not positive."""

    tokens: Tensor
    features: Tensor
    values: Tensor
    scores: Tensor

    def worst(self, total: int) -> Tensor:
        """The score of place `total`, 0 where there are fewer."""
        if len(self.scores) < total:
            return self.scores.new_zeros(())
        return self.scores[total - 1]


def over_batch(problem: Problem, total: int) -> Code:
    """The `total` best pairs of the batch, non-zero ones only."""
    n_tokens, n_features, device = len(problem.x), len(problem.W), problem.x.device
    screen, queries = screen_of(problem), torch.arange(n_tokens, device=device)
    pool = _Pool(queries[:0], queries[:0], *(queries[:0].double() for _ in range(2)))
    tally["asked"] += n_tokens
    lengths = rungs(_BATCH[0] * -(-total // n_tokens) + _BATCH[1], n_features)
    for most in lengths:
        thetas = []
        for rows in pieces(queries, most):
            keep_Q = torch.full_like(rows, most, dtype=torch.int32)
            found = lists(screen.of(rows), keep_Q, most)
            pool = _merged(problem, pool, rows, found, total)
            thetas.append(found.thetas)
        # Certified where the worst winner beats every score in no list of that token.
        theta_Q, worst = torch.cat(thetas), pool.worst(total)
        queries = queries[(theta_Q > 0) & ~(theta_Q < worst)]
        tally["certified"] += n_tokens - len(queries) if most == lengths[0] else 0
        if not len(queries):
            break
        # These tokens' pairs come again, from longer lists.
        again_B = torch.zeros(n_tokens, dtype=torch.bool, device=device).index_fill(
            0, queries, True
        )
        kept = (~again_B[pool.tokens]).nonzero()[:, 0]
        pool = _Pool(*(t[kept] for t in pool))
    won = ((pool.scores > 0) & (pool.values.float() != 0)).nonzero()[:, 0]
    return code_of(problem, pool.tokens[won], pool.features[won], pool.values[won])


def _merged(problem: Problem, pool: _Pool, rows: Tensor, found: Lists, total: int) -> _Pool:
    """The `total` best of a pool and the pairs of more lists.

    Scored are first those with the best bounds; their worst winner can only be replaced by better
    ones, so of the others only those whose bound exceeds its score need scoring at all.
    """
    token_N = rows[:, None].expand(found.items.shape).reshape(-1)
    feature_N = found.items.reshape(-1)
    bound_N = torch.where(found.items < 0, -1.0, found.bounds.double()).reshape(-1)
    cut = pool.worst(total)
    if len(pool.scores) < total and len(bound_N) > total:
        cut = bound_N.topk(total).values[-1]
    for wanted_N in (bound_N >= cut, bound_N < cut):
        which = (wanted_N & (bound_N > pool.worst(total))).nonzero()[:, 0]
        tokens, features = token_N[which], feature_N[which].long()
        values, scores = exact(problem, tokens, features)
        more = (tokens, features, values, scores.clamp_min(0))
        pool = _Pool(*(torch.cat(pair) for pair in zip(pool, more, strict=True)))
        order = torch.argsort(pool.tokens * len(problem.W) + pool.features)
        by_score = torch.sort(pool.scores[order], descending=True, stable=True).indices
        pool = _Pool(*(t[order[by_score[:total]]] for t in pool))
    return pool
