"""Choosing on CUDA GPUs: half-precision products, lists of what may win, values exact to float64's
rounding, a certificate.

What is not certified is done again, all of it together, with longer lists, at last with lists of
everything that may be positive. Shapes: B tokens, F features, Q queries (tokens; features under a
feature budget), C candidates of a query, K pairs of a token, N pairs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels.triton import exact as programs
from saelab.kernels.triton import sizes
from saelab.kernels.triton.ladder import code_of, pieces, rungs, tally
from saelab.kernels.triton.screen import Lists, Problem, Screen, exact, lists, screen_of

_programs: Any = programs  # compiled when launched, with plain numbers for compile-time constants
_COMPARED = 4096  # candidates that are compared each with each; longer lists are sorted


class Winners(NamedTuple):
    """The best of each list."""

    items: Tensor
    """[Q, C] int32"""
    values: Tensor
    """[Q, C] float64"""
    wins: Tensor
    """[Q, C] bool"""
    certified: Tensor
    """[Q] bool: whether they are the best of all"""
    features: Tensor
    """[Q, K] int64: for a token budget its K features, ascending, completed at the lowest"""
    kept: Tensor
    """[Q, K] float32: their values"""


def _best(
    problem: Problem, screen: Screen, queries: Tensor, budget_Q: Tensor, keep_Q: Tensor, most: int,
    k: int = 0,
) -> Winners:  # fmt: skip
    """The budget_Q[q] best of some queries, from lists of keep_Q[q], at most `most`.

    k: pairs of a token; 0: the queries are features.
    """
    found = lists(screen.of(queries), keep_Q, most)
    query_N = queries[:, None].expand(found.items.shape).reshape(-1)
    item_N = found.items.reshape(-1)
    if not k:
        query_N, item_N = torch.where(item_N < 0, 0, item_N), torch.where(item_N < 0, -1, query_N)
    values, scores = (t.view(found.items.shape) for t in exact(problem, query_N, item_N))
    settled = _compared if most <= _COMPARED else _sorted
    return settled(found, values, scores, budget_Q.int(), k, len(screen.items.rows))


def _compared(
    found: Lists, values: Tensor, scores: Tensor, budget_Q: Tensor, k: int, _: int
) -> Winners:
    (n_queries, n_listed), device, s = found.items.shape, values.device, sizes.here()
    wins = torch.empty(n_queries, n_listed, dtype=torch.int8, device=device)
    certified = torch.empty(n_queries, dtype=torch.int8, device=device)
    features = torch.empty(n_queries, k, dtype=torch.int64, device=device)
    kept = torch.empty(n_queries, k, device=device)
    _programs.settle[(n_queries,)](
        found.items, scores, values, found.thetas, budget_Q, wins, certified, features, kept,
        n_listed, k, k > 0, s.listed, **s.launch(1),
    )  # fmt: skip
    return Winners(found.items, values, wins.bool(), certified.bool(), features, kept)


def _sorted(
    found: Lists, values: Tensor, scores: Tensor, budget_Q: Tensor, k: int, n_items: int
) -> Winners:
    """By a sort of all items, of lists of everything that may be positive."""
    place = torch.where(found.items < 0, n_items, found.items).long()
    shape = len(place), n_items + 1  # the last column takes what no item is at
    score_QI = scores.new_zeros(shape).scatter_(1, place, scores.clamp_min(0))[:, :-1]
    value_QI = values.new_zeros(shape).scatter_(1, place, values)[:, :-1]
    # A stable sort leaves equals, and so all that have no positive score, in the order of items.
    score, item = torch.sort(score_QI, dim=1, descending=True, stable=True)
    value = torch.where(score > 0, value_QI.gather(1, item), 0)
    rank = torch.arange(n_items, device=item.device)
    wins = (rank < budget_Q[:, None]) & (score > 0)
    features, order = item[:, :k].sort(dim=1)
    kept = value[:, :k].gather(1, order).float()
    worst_Q = torch.where(wins, score, torch.inf).amin(1)
    certified = (found.thetas == 0) | ((wins.sum(1) == budget_Q) & (worst_Q > found.thetas))
    return Winners(item.int(), value, wins, certified, features, kept)


def over_tokens(problem: Problem, k: int) -> Code:
    """The k best pairs of every token."""
    (n_tokens, _), n_features, device = problem.x.shape, len(problem.W), problem.x.device
    screen, queries = screen_of(problem), torch.arange(n_tokens, device=device)
    feature_BK = torch.empty(n_tokens, k, dtype=torch.int64, device=device)
    value_BK = torch.empty(n_tokens, k, device=device)
    tally["asked"] += n_tokens
    lengths = rungs(k + max(16, k // 2), n_features)
    for most in lengths:
        certified = []
        for rows in pieces(queries, most):
            budget_Q, keep_Q = (torch.full_like(rows, n, dtype=torch.int32) for n in (k, most))
            best = _best(problem, screen, rows, budget_Q, keep_Q, most, k)
            feature_BK[rows], value_BK[rows] = best.features, best.kept
            certified.append(best.certified)
        # Lists of all features leave nothing positive out.
        queries = queries[~torch.cat(certified)] if most < n_features else queries[:0]
        tally["certified"] += n_tokens - len(queries) if most == lengths[0] else 0
        if not len(queries):
            break
    starts = torch.arange(0, n_tokens * k + 1, k, device=device)
    return Code(starts, feature_BK.view(-1), value_BK.view(-1), n_features)


def over_features(problem: Problem, budget_F: Tensor) -> Code:
    """The budget[f] best pairs of every feature, non-zero ones only.

    Features are done together whose lists are about as long: one with a large budget costs the
    others nothing.
    """
    n_tokens, device = len(problem.x), problem.x.device
    screen = screen_of(problem).transposed()
    keep_F = (budget_F + (budget_F // 2).clamp_min(16)).clamp_max(n_tokens)
    class_F = torch.where(budget_F > 0, keep_F.double().log2().ceil().long(), -1)
    order_F = torch.sort(class_F, stable=True).indices
    sizes_C = (class_F == torch.arange(-1, 63, device=device)[:, None]).sum(1).tolist()
    groups = order_F.split(sizes_C)[1:]
    parts, certified, asked = [], [], order_F[sizes_C[0] :]
    work = [(rows, min(n_tokens, 1 << c)) for c, rows in enumerate(groups) if len(rows)]
    for last in (False, True):
        for group, most in work:
            for rows in pieces(group, most):
                keep_Q = torch.full_like(rows, most) if last else keep_F[rows]
                best = _best(problem, screen, rows, budget_F[rows], keep_Q.int(), most)
                wins = best.wins & best.certified[:, None]
                feature_QC = rows[:, None].expand(wins.shape)
                parts.append((best.items, feature_QC, best.values, wins))
                certified.append(best.certified)
        if last or not certified:
            break
        failed = asked[~torch.cat(certified)]
        tally["asked"] += len(asked)
        tally["certified"] += len(asked) - len(failed)
        work = [(failed, n_tokens)] if len(failed) else []
    if not parts:
        empty = torch.empty(0, dtype=torch.int64, device=device)
        return code_of(problem, empty, empty, empty.double())
    token_N, feature_N, value_N, win_N = (
        torch.cat([t.reshape(-1) for t in column]) for column in zip(*parts, strict=True)
    )
    won = (win_N & (value_N.float() != 0)).nonzero()[:, 0]
    return code_of(problem, token_N[won].long(), feature_N[won], value_N[won])
