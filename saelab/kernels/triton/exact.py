"""Triton programs that decide: exact dots, winners of a list.

No atomics: every sum has one order. Shapes: Q queries (tokens, or features under a feature budget),
C candidates of a query, K pairs of a token, D width, N pairs.
"""

# A sum or a greatest of a block is a number here; Triton's own types leave open what it is.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import triton
import triton.language as tl


@triton.jit(do_not_specialize=["n_pairs"])
def exact_dots(
    A, W, bias, tokens, features, out, n_pairs, width,
    BIASED: tl.constexpr, PAIRS: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """A[token] . W[feature], plus bias[feature], at every pair, summed in float64; 0 where the
    feature is -1."""
    n = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    feature = tl.load(features + n, mask=n < n_pairs, other=-1).to(tl.int64)
    there = feature >= 0
    token = tl.load(tokens + n, mask=there, other=0).to(tl.int64)
    total = tl.zeros([PAIRS, BLOCK], tl.float64)
    for begin in range(0, width, BLOCK):
        d = (begin + tl.arange(0, BLOCK))[None, :]
        inside = there[:, None] & (d < width)
        a = tl.load(A + token[:, None] * width + d, mask=inside, other=0.0).to(tl.float64)
        w = tl.load(W + feature[:, None] * width + d, mask=inside, other=0.0).to(tl.float64)
        total += a * w
    dot = tl.sum(total, 1)
    if BIASED:
        dot += tl.load(bias + feature, mask=there, other=0.0).to(tl.float64)
    tl.store(out + n, tl.where(there, dot, 0.0), mask=n < n_pairs)


@triton.jit(do_not_specialize=["n_listed", "k"])
def settle(
    items, scores, values, thetas, budgets, wins, certified, features, kept, n_listed, k,
    FILL: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """wins [Q, C]: the budgets[q] best positive scores of each list, ties to the lowest item;
    certified [Q]: whether they beat all that is in no list, whose scores are at most theta.

    FILL: also the k pairs of a token, by feature: features and kept [Q, k], completed with value 0
    at the lowest features.
    """
    q = tl.program_id(0).to(tl.int64)
    budget, theta = tl.load(budgets + q), tl.load(thetas + q)
    n_won = 0
    worst = tl.full([], float("inf"), tl.float64)
    for begin in range(0, n_listed, BLOCK):
        i = begin + tl.arange(0, BLOCK)
        item = tl.load(items + q * n_listed + i, mask=i < n_listed, other=-1)
        score = tl.load(scores + q * n_listed + i, mask=i < n_listed, other=0.0)
        rank = tl.zeros([BLOCK], tl.int32)
        for other in range(0, n_listed, BLOCK):
            j = other + tl.arange(0, BLOCK)
            rival = tl.load(items + q * n_listed + j, mask=j < n_listed, other=-1)
            theirs = tl.load(scores + q * n_listed + j, mask=j < n_listed, other=0.0)
            tied = (theirs[None, :] == score[:, None]) & (rival[None, :] < item[:, None])
            beaten = (theirs[None, :] > score[:, None]) | tied
            rank += tl.sum((beaten & (rival >= 0)[None, :]).to(tl.int32), 1)
        won = (item >= 0) & (score > 0) & (rank < budget)
        tl.store(wins + q * n_listed + i, won.to(tl.int8), mask=i < n_listed)
        n_won += tl.sum(won.to(tl.int32), 0)
        worst = tl.minimum(worst, tl.min(tl.where(won, score, float("inf")), 0))
    sure = (theta == 0) | ((n_won == budget) & (worst > theta))
    tl.store(certified + q, sure.to(tl.int8))
    if FILL:
        for begin in range(0, k, BLOCK):
            place = begin + tl.arange(0, BLOCK)
            tl.store(features + q * k + place, place.to(tl.int64), mask=place < k)
            tl.store(kept + q * k + place, tl.zeros([BLOCK], tl.float32), mask=place < k)
        tl.debug_barrier()
        # The completing features are the lowest that have not won. Below the last of them every
        # feature is in the code, at the place of its own number; above it there are winners only.
        for begin in range(0, n_listed, BLOCK):
            i = begin + tl.arange(0, BLOCK)
            item = tl.load(items + q * n_listed + i, mask=i < n_listed, other=-1)
            won = tl.load(wins + q * n_listed + i, mask=i < n_listed, other=0) != 0
            value = tl.load(values + q * n_listed + i, mask=won, other=0.0)
            below = tl.zeros([BLOCK], tl.int32)
            for other in range(0, n_listed, BLOCK):
                j = other + tl.arange(0, BLOCK)
                rival = tl.load(items + q * n_listed + j, mask=j < n_listed, other=-1)
                theirs = tl.load(wins + q * n_listed + j, mask=j < n_listed, other=0) != 0
                before = theirs[None, :] & (rival[None, :] < item[:, None])
                below += tl.sum(before.to(tl.int32), 1)
            spot = q * k + below + tl.minimum(item - below, k - n_won)
            tl.store(features + spot, item.to(tl.int64), mask=won)
            tl.store(kept + spot, value.to(tl.float32), mask=won)
