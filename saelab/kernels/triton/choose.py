"""Choosing on CUDA GPUs: half-precision products, a selection behind each, values exact to
float64's rounding.

The same plan as on CPUs: upper bounds from a product in low precision, exact scores of what can
win, a certificate, and a second way for what is not certified. Shapes: B tokens, F features, D
width, T features of a tile, N pairs, C candidates per query.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from saelab.code import Code
from saelab.kernels.triton import loops
from saelab.kernels.triton.screen import Problem, exact, pool, tiles

# Compiled when launched, with plain numbers for compile-time constants.
_loops: Any = loops
_SPARES = (1.6, 8.0)  # candidates a batch budget asks for, in multiples of the budget


def _ranked(score_QC: Tensor, item_QC: Tensor) -> Tensor:
    """[Q, C]: positions by falling score, ties to the lowest item."""
    by_item = torch.sort(item_QC, dim=1, stable=True).indices
    by_score = torch.sort(score_QC.gather(1, by_item), dim=1, descending=True, stable=True).indices
    return by_item.gather(1, by_score)


def _candidates(problem: Problem, k: int) -> tuple[Tensor, Tensor]:
    """(features [B, C], -1 where there is none; [B]: a number that no score of a feature left out
    exceeds)."""
    n_tokens, n_features = len(problem.x), len(problem.W)
    most = min(n_features, k + max(16, k // 2))
    room = int(triton.next_power_of_2(min(n_features, 4 * most + 64)))
    device = problem.x.device
    keys = torch.full((n_tokens, room), -1.0, device=device)
    items = torch.full((n_tokens, room), -1, dtype=torch.int64, device=device)
    counts = torch.zeros(n_tokens, dtype=torch.int32, device=device)
    thetas = torch.zeros(n_tokens, device=device)
    for features, bound_BT in tiles(problem):
        first, step = int(features[0]), int(features[1] - features[0]) if len(features) > 1 else 1
        if first == 0 and len(features) < n_features:
            # The first tile samples all features: about `expected` of the best `most` lie in it,
            # and 2.2 standard deviations more are rarely reached.
            expected = most * len(features) / n_features
            rank = min(int(expected + 2.2 * expected**0.5) + 1, len(features))
            # Just below that bound, so that its own pair still passes.
            theta_B = bound_BT.topk(rank, dim=1).values[:, -1] * (1 - 2.0**-20)
            thetas = theta_B.clamp_min(0).contiguous()
        grid, n_columns = (n_tokens,), bound_BT.shape[1]
        _loops.append[grid](
            bound_BT, thetas, counts, keys, items, first, step, n_columns, room, 128
        )
    # Left out is what stayed below the threshold, and the best listed bound beyond the `most` kept.
    # A list that overflowed lost pairs of unknown bounds, so nothing is certain for its token.
    best = keys.topk(min(most + 1, room), dim=1)
    left_B = torch.maximum(thetas, best.values[:, most] if best.values.shape[1] > most else thetas)
    left_B = torch.where(counts > room, torch.inf, left_B)
    return items.gather(1, best.indices[:, :most]), left_B


def over_tokens(problem: Problem, k: int) -> Code:
    """The k best pairs of every token."""
    n_tokens, n_features, device = len(problem.x), len(problem.W), problem.x.device
    item_BC, left_B = _candidates(problem, k)
    token_B1 = torch.arange(n_tokens, device=device)[:, None]
    value_BC, score_BC = exact(problem, token_B1, item_BC.clamp_min(0))
    score_BC = torch.where(item_BC < 0, 0, score_BC.clamp_min(0))
    best = _ranked(score_BC, item_BC)[:, :k]
    feature_BK, score_BK = item_BC.gather(1, best), score_BC.gather(1, best)
    value_BK = torch.where(score_BK > 0, value_BC.gather(1, best), 0)
    # Certified where the worst winner beats every score left out; the rest is done from all scores.
    for b in ((score_BK[:, -1] <= left_B) & (left_B > 0)).nonzero()[:, 0].tolist():
        feature_BK[b], value_BK[b] = _one_token(problem, b, k)
    for b in (value_BK == 0).any(1).nonzero()[:, 0].tolist():
        feature_BK[b], value_BK[b] = _filled(feature_BK[b], value_BK[b], n_features)
    order = feature_BK.argsort(dim=1)
    starts = torch.arange(0, n_tokens * k + 1, k, device=device)
    values = value_BK.gather(1, order).float()
    return Code(starts, feature_BK.gather(1, order).reshape(-1), values.reshape(-1), n_features)


def _one_token(problem: Problem, b: int, k: int) -> tuple[Tensor, Tensor]:
    """The k best of one token from all its exact scores: (features [K], values [K], 0 where the
    score is not positive)."""
    features = torch.arange(len(problem.W), device=problem.x.device)
    value_F, score_F = exact(problem, torch.full_like(features, b), features)
    best = torch.sort(score_F, descending=True, stable=True).indices[:k]
    return best, torch.where(score_F[best] > 0, value_F[best], 0)


def _filled(feature_K: Tensor, value_K: Tensor, n_features: int) -> tuple[Tensor, Tensor]:
    """The non-zero pairs of a token, completed with value 0 at the lowest features."""
    kept = feature_K[value_K != 0]
    free_F = torch.ones(n_features, dtype=torch.bool, device=kept.device)
    free_F[kept] = False
    rest = free_F.nonzero()[: len(feature_K) - len(kept), 0]
    return torch.cat([kept, rest]), torch.cat([value_K[value_K != 0], value_K.new_zeros(len(rest))])


def _code(problem: Problem, tokens: Tensor, features: Tensor, values: Tensor) -> Code:
    """Pairs in any order, as a Code without values 0."""
    values = values.float()
    tokens, features, values = tokens[values != 0], features[values != 0], values[values != 0]
    order = torch.argsort(tokens * len(problem.W) + features)
    counts = torch.bincount(tokens, minlength=len(problem.x))
    starts = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return Code(starts, features[order], values[order], len(problem.W))


def over_features(problem: Problem, budget_F: Tensor) -> Code:
    """The budget[f] best pairs of every feature, non-zero ones only."""
    n_tokens, parts = len(problem.x), []
    for features, bound_BT in tiles(problem):
        most = int(budget_F[features].max())
        if most == 0:
            continue
        best = bound_BT.T.topk(min(most + 17, n_tokens), dim=1)
        # The last of the listed bounds is the greatest that anything left out can have.
        left_T = best.values[:, -1]
        if best.values.shape[1] == n_tokens:
            left_T = torch.full_like(left_T, -torch.inf)
        feature_TC = features[:, None].expand(best.indices.shape)
        value_TC, score_TC = exact(problem, best.indices, feature_TC)
        order = _ranked(score_TC, best.indices)
        token_TC, value_TC, score_TC = (
            t.gather(1, order) for t in (best.indices, value_TC, score_TC)
        )
        wanted_T = budget_F[features]
        worst_T = score_TC.gather(1, (wanted_T - 1).clamp_min(0)[:, None])[:, 0]
        failed_T = (wanted_T > 0) & (worst_T <= left_T) & (left_T > 0)
        within = torch.arange(order.shape[1], device=order.device) < wanted_T[:, None]
        kept = within & (score_TC > 0) & ~failed_T[:, None]
        parts.append((token_TC[kept], feature_TC[kept], value_TC[kept]))
        for t in failed_T.nonzero()[:, 0].tolist():
            parts.append(_one_feature(problem, int(features[t]), int(wanted_T[t])))
    if not parts:
        empty = torch.empty(0, dtype=torch.int64, device=problem.x.device)
        return _code(problem, empty, empty, empty.double())
    return _code(problem, *(torch.cat(column) for column in zip(*parts, strict=True)))


def _one_feature(problem: Problem, f: int, wanted: int) -> tuple[Tensor, Tensor, Tensor]:
    tokens = torch.arange(len(problem.x), device=problem.x.device)
    value_B, score_B = exact(problem, tokens, torch.full_like(tokens, f))
    best = torch.sort(score_B, descending=True, stable=True).indices[:wanted]
    best = best[score_B[best] > 0]
    return best, torch.full_like(best, f), value_B[best]


def over_batch(problem: Problem, total: int) -> Code:
    """The `total` best pairs of the batch, non-zero ones only."""
    features, sample_BT = next(tiles(problem))
    positive_N = sample_BT[sample_BT > 0]
    for spare in (*_SPARES, torch.inf):
        rank = spare * total * len(features) / len(problem.W)
        theta = 0.0
        if rank + 1 < len(positive_N):
            theta = float(positive_N.topk(int(rank) + 1).values[-1]) * (1 - 2.0**-20)
        tokens, which = pool(problem, theta)
        value_N, score_N = exact(problem, tokens, which)
        order = torch.argsort(tokens * len(problem.W) + which)
        best = order[torch.sort(score_N[order], descending=True, stable=True).indices][:total]
        best = best[score_N[best] > 0]
        if theta == 0 or (len(best) == total and float(score_N[best[-1]]) > theta):
            return _code(problem, tokens[best], which[best], value_N[best])
    raise AssertionError("a threshold of 0 always settles")


def over_level(problem: Problem, level_F: Tensor, lowest_F: Tensor) -> Code:
    """Every pair whose size exceeds lowest_F, with value 0 where it does not exceed level_F."""
    limit_F = (lowest_F - lowest_F.abs() * 2.0**-20).float()
    tokens, features = pool(problem, limit_F)
    value_N, score_N = exact(problem, tokens, features)
    kept = score_N > lowest_F[features]
    value_N = torch.where(score_N > level_F[features], value_N, 0)[kept].float()
    tokens, features = tokens[kept], features[kept]
    order = torch.argsort(tokens * len(problem.W) + features)
    counts = torch.bincount(tokens, minlength=len(problem.x))
    return Code(
        torch.cat([counts.new_zeros(1), counts.cumsum(0)]),
        features[order],
        value_N[order],
        len(problem.W),
    )
