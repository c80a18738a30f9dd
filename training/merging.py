"""The best pairs of a batch whose candidates lie on several ranks, as one process would choose
them: equal scores go to the lowest token, then to the lowest feature.

Each rank brings its own best, among which all of its winners are. Shapes: B tokens, N candidates of
this rank, K of them per token, n ranks.
"""

import torch
from torch import Tensor

from saelab import ranks

from . import collectives

DIGIT = 16  # bits of a score that one histogram tells apart


def of_tokens(score_BK: Tensor, k: int) -> Tensor:
    """Which candidates are among the k best of their token: mask [B, K]. B is a multiple of n, the
    ranks hold the features in order and each its candidates by rising feature, scores are at least
    0.

    The ranks share out the tokens: the owner of a token merges its scores, and tells each rank how
    many of its own have won; these are its first by falling score.
    """
    n, (n_tokens, width) = ranks.world(), score_BK.shape
    order_BK = score_BK.sort(dim=1, descending=True, stable=True).indices
    best_Bk = score_BK.new_full((n_tokens, k), -1)  # what a rank lacks never wins
    best_Bk[:, :width] = score_BK.gather(1, order_BK)[:, :k]
    every = collectives.swapped(best_Bk.view(n, -1, k), "scores")
    row_bn = every.transpose(0, 1).reshape(-1, n * k)  # a token's scores, rank after rank
    winner_bk = row_bn.sort(dim=1, descending=True, stable=True).indices[:, :k] // k
    counts_bn = winner_bk.new_zeros(len(row_bn), n, dtype=torch.int32)
    counts_bn.scatter_add_(1, winner_bk, torch.ones_like(winner_bk, dtype=torch.int32))
    counts_B = collectives.swapped(counts_bn.T.contiguous(), "counts").view(-1, 1)
    places = torch.arange(width, device=order_BK.device).expand_as(order_BK)
    return torch.empty_like(order_BK).scatter_(1, order_BK, places) < counts_B


def of_batch(score_N: Tensor, token_N: Tensor, n_tokens: int, total: int, by_token: bool) -> Tensor:
    """Which candidates are among the `total` best of all ranks: mask [N]. Scores are float64 and
    above 0, candidates stand by token, then feature.

    by_token: the ranks hold the tokens in order, n_tokens each; else the features, of the same
    tokens.
    """
    bits_N = score_N.contiguous().view(torch.int64)  # which have the order of positive numbers
    worst = _worst(bits_N, total)
    if worst is None:
        return torch.ones_like(bits_N, dtype=torch.bool)
    bits, room = worst
    tie_N = bits_N == bits
    ties_B = torch.bincount(token_N[tie_N], minlength=n_tokens)
    every_nB = collectives.gathered(ties_B, "ties")
    in_order = every_nB if by_token else every_nB.T
    before = (in_order.flatten().cumsum(0) - in_order.flatten()).view(in_order.shape)
    mine_B = (before if by_token else before.T)[ranks.rank()]
    # A tie's place among this rank's of its token, from which its place among all.
    first_B = ties_B.cumsum(0) - ties_B
    place_N = tie_N.cumsum(0) - 1 - first_B[token_N]
    return (bits_N > bits) | (tie_N & (mine_B[token_N] + place_N < room))


def _worst(bits_N: Tensor, total: int) -> tuple[int, int] | None:
    """The bits of the total-th largest score of all ranks, and how many of those equal to it have
    room; None where there are no more than `total`. Found digit by digit, from histograms."""
    bits, room, left_N = 0, total, bits_N
    for shift in range(64 - DIGIT, -1, -DIGIT):
        digit_N = (left_N >> shift) & ((1 << DIGIT) - 1)
        counts = collectives.summed(torch.bincount(digit_N, minlength=1 << DIGIT), "histograms")
        reached = counts.flip(0).cumsum(0)
        if int(reached[-1]) <= room and left_N is bits_N:
            return None
        back = int((reached < room).sum())
        digit = len(counts) - 1 - back
        room -= int(reached[back] - counts[digit])
        bits, left_N = bits << DIGIT | digit, left_N[digit_N == digit]
    return bits, room
