"""Inference levels of a batch or feature budget: the budget applied once to a large sample of
tokens as a single batch.

Shapes: B tokens, F features, D width, N pairs.
"""

from collections.abc import Iterable

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
    n_tokens = sum(len(piece) for piece in pieces)
    wanted_F = equal_budget(choice.k, n_tokens, len(W_enc_FD)).to(W_enc_FD.device)
    if share_F is not None:
        wanted_F = whole(share_F, choice.k * n_tokens, n_tokens).to(W_enc_FD.device)
    if choice.over == "batch":
        wanted_F = torch.full_like(wanted_F, choice.k * n_tokens)
    low_F = _guess(pieces[0][: 4 * ROWS], W_enc_FD, b_enc_F, choice, wanted_F, n_tokens)
    while True:
        features_N, scores_N = _above(low_F, pieces, W_enc_FD, b_enc_F, choice.signed)
        counts_F = torch.bincount(features_N, minlength=len(W_enc_FD))
        if choice.over == "batch":  # one budget: every feature has the count of all
            counts_F = counts_F.sum().expand_as(counts_F)
        short_F = (counts_F < wanted_F) & (low_F > 0)
        if not bool(short_F.any()):
            smallest_F = _kth_largest(features_N, scores_N, wanted_F, choice.over == "batch")
            # Just below it, because a value must exceed its level to pass, as it must where another
            # device rounds it otherwise. With fewer scores than its budget a feature would in a
            # larger sample keep any positive one: level 0.
            return torch.where(counts_F < wanted_F, 0, smallest_F * (1 - MARGIN)).clamp_min(0)
        # Only the short ones go lower, as the others' pairs would only cost memory; a guess that is
        # small already goes to 0 at once, so that a feature with few firings ends the loop.
        lower_F = torch.where(low_F < 1e-3 * low_F.max(), 0, low_F / 4)
        low_F = torch.where(short_F, lower_F, low_F)


def _guess(
    x_BD: Tensor,
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    choice: Choice,
    wanted_F: Tensor,
    n_tokens: int,
) -> Tensor:
    """[F]: half of the smallest score that the budget keeps in some tokens alone."""
    plain = Choice(choice.k, choice.over, choice.signed)
    budget_F = None
    if choice.over == "feature":
        budget_F = (wanted_F * len(x_BD) / n_tokens).ceil().long()
    code = kernels.choose(x_BD, W_enc_FD, b_enc_F, plain, budget=budget_F)
    every_F = torch.full_like(wanted_F, 2**62)
    return _kth_largest(code.features, code.values.abs(), every_F, choice.over == "batch") / 2


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


def _kth_largest(
    features_N: Tensor, scores_N: Tensor, wanted_F: Tensor, over_batch: bool
) -> Tensor:
    """[F]: the wanted-th largest score per feature (or over the batch), the smallest if there are
    fewer, 0 if there is none."""
    if over_batch:
        n = min(int(wanted_F[0]), len(scores_N))
        value = scores_N.topk(n).values[-1] if n else scores_N.new_zeros(())
        return value.expand(len(wanted_F)).clone()
    order_N = torch.sort(scores_N, descending=True, stable=True).indices
    order_N = order_N[torch.sort(features_N[order_N], stable=True).indices]
    counts_F = torch.bincount(features_N, minlength=len(wanted_F))
    ends_F = counts_F.cumsum(0) - counts_F + torch.minimum(counts_F, wanted_F) - 1
    sorted_N = torch.cat([scores_N[order_N], scores_N.new_zeros(1)])
    return torch.where((counts_F > 0) & (wanted_F > 0), sorted_N[ends_F.clamp_min(0)], 0)
