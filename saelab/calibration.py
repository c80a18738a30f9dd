"""Inference levels of a batch or feature budget: the budget applied once to a large sample of
tokens as a single batch.

Shapes: B tokens, F features, D width, N pairs.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from saelab import kernels
from saelab.budgets import whole
from saelab.errors import UsageError
from saelab.kernels.reference import equal_budget
from saelab.sparsify import Choice, Threshold

ROWS = 1024  # tokens coded at a time
MARGIN = 1e-5  # by which a level lies below the smallest score that it lets through, relative


def first_tokens(batches: Iterable[Tensor], n_tokens: int) -> list[Tensor]:
    """The first n_tokens rows of batches [B, D]. Raises UsageError where there is none."""
    pieces, n_read = [], 0
    for x_BD in batches:
        pieces.append(x_BD[: n_tokens - n_read])
        n_read += len(pieces[-1])
        if n_read >= n_tokens:
            break
    if not n_read:
        raise UsageError("calibration got no tokens")
    return pieces


def levels(
    pieces: list[Tensor],
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    choice: Choice,
    share_F: Tensor | None = None,
) -> Tensor:
    """[F]: just below the smallest score that `choice` keeps over all pieces (centred activations
    [B, D]) taken as one batch.

    Equal entries for a batch budget. share_F: what a feature budget is shared out by (default:
    equally). A feature that no positive score reaches, or with fewer than its budget, gets level 0.
    Scores above a guess (half of the first piece's level) are collected; where too few pass, the
    guess is lowered, and again.
    """
    if choice.over == "batch":
        level = common_level([pieces], [(W_enc_FD, b_enc_F)], choice)
        return level.expand(len(W_enc_FD)).clone()
    n_tokens = sum(len(piece) for piece in pieces)
    wanted_F = equal_budget(choice.k, n_tokens, len(W_enc_FD)).to(W_enc_FD.device)
    if share_F is not None:
        wanted_F = whole(share_F, choice.k * n_tokens, n_tokens).to(W_enc_FD.device)
    low_F = _guess(pieces[0][: 4 * ROWS], W_enc_FD, b_enc_F, choice, wanted_F, n_tokens)
    while True:
        features_N, scores_N = _above(low_F, pieces, W_enc_FD, b_enc_F, choice.signed)
        counts_F = torch.bincount(features_N, minlength=len(W_enc_FD))
        short_F = (counts_F < wanted_F) & (low_F > 0)
        if not bool(short_F.any()):
            smallest_F = _kth_largest(features_N, scores_N, wanted_F)
            # Just below it, because a value must exceed its level to pass, as it must where another
            # device rounds it otherwise. With fewer scores than its budget a feature would in a
            # larger sample keep any positive one: level 0.
            return torch.where(counts_F < wanted_F, 0, smallest_F * (1 - MARGIN)).clamp_min(0)
        # Only the short ones go lower, as the others' pairs would only cost memory; a guess that is
        # small already goes to 0 at once, so that a feature with few firings ends the loop.
        lower_F = torch.where(low_F < 1e-3 * low_F.max(), 0, low_F / 4)
        low_F = torch.where(short_F, lower_F, low_F)


def common_level(
    columns: Sequence[list[Tensor]], weights: Sequence[tuple[Tensor, Tensor]], choice: Choice
) -> Tensor:
    """The one level of a batch budget over dictionaries that share it: just below the smallest of
    the k n_tokens scores per dictionary that it keeps of all; 0 where fewer are positive.

    columns: of each dictionary its centred activations [B, D] in pieces; weights: its W_enc [F, D]
    and b_enc [F].
    """
    total = choice.k * len(columns) * sum(len(piece) for piece in columns[0])
    plain = Choice(choice.k, choice.over, choice.signed)
    guesses = [
        kernels.choose(pieces[0][: 4 * ROWS], *pair, plain).values.abs()
        for pieces, pair in zip(columns, weights, strict=True)
    ]
    low = torch.stack([_smallest(scores_N) for scores_N in guesses]).min() / 2
    while True:
        scores = [
            _above(low.expand(len(pair[1])), pieces, *pair, choice.signed)[1]
            for pieces, pair in zip(columns, weights, strict=True)
        ]
        if sum(map(len, scores)) >= total:
            return (torch.cat(scores).topk(total).values[-1] * (1 - MARGIN)).clamp_min(0)
        if not low > 0:
            return torch.zeros_like(low)
        low = low / 4


def _smallest(scores_N: Tensor) -> Tensor:
    return scores_N.min() if len(scores_N) else scores_N.new_zeros(())


def _guess(
    x_BD: Tensor,
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    choice: Choice,
    wanted_F: Tensor,
    n_tokens: int,
) -> Tensor:
    """[F]: half of the smallest score that the budget keeps of each feature in some tokens
    alone."""
    plain = Choice(choice.k, choice.over, choice.signed)
    budget_F = (wanted_F * len(x_BD) / n_tokens).ceil().long()
    code = kernels.choose(x_BD, W_enc_FD, b_enc_F, plain, budget=budget_F)
    return _kth_largest(code.features, code.values.abs(), torch.full_like(wanted_F, 2**62)) / 2


def _above(
    low_F: Tensor, pieces: list[Tensor], W_enc_FD: Tensor, b_enc_F: Tensor, signed: bool
) -> tuple[Tensor, Tensor]:
    """Features and scores of all pairs whose score exceeds low_F."""
    form = Threshold(signed=signed)
    codes = (
        kernels.choose(x_BD, W_enc_FD, b_enc_F, form, level=low_F)
        for piece in pieces
        for x_BD in piece.split(ROWS)
    )
    pairs = [(code.features, code.values.abs()) for code in codes]
    return torch.cat([f for f, _ in pairs]), torch.cat([v for _, v in pairs])


def _kth_largest(features_N: Tensor, scores_N: Tensor, wanted_F: Tensor) -> Tensor:
    """[F]: the wanted-th largest score per feature, the smallest if there are fewer, 0 if there is
    none."""
    order_N = torch.sort(scores_N, descending=True, stable=True).indices
    order_N = order_N[torch.sort(features_N[order_N], stable=True).indices]
    counts_F = torch.bincount(features_N, minlength=len(wanted_F))
    ends_F = counts_F.cumsum(0) - counts_F + torch.minimum(counts_F, wanted_F) - 1
    sorted_N = torch.cat([scores_N[order_N], scores_N.new_zeros(1)])
    return torch.where((counts_F > 0) & (wanted_F > 0), sorted_N[ends_F.clamp_min(0)], 0)
