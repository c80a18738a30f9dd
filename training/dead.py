"""AuxK of one layer: what its features that have fallen silent would add where it errs.

Shapes: B tokens, F features of the layer, A of them that are considered, D width in, E width out.
"""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import fused, losses
from .config import Config
from .layout import Layout
from .updates import Extra, unread

FEW = 0.02  # share of dead features that is worth no word


def idle(rows: Sequence[dict]) -> float:
    """The mean AuxK loss over the later half of a run's rows in which features were dead, if it is
    1 or more, which doing nothing would reach as well, and more than FEW are dead at the end; else
    0."""
    if rows[-1]["dead"] <= FEW:
        return 0.0
    late = [row["aux"] for row in rows[len(rows) // 2 :] if row["dead"] and row.get("aux")]
    mean = fmean(late) if late else 0.0
    return mean if mean >= 1 else 0.0


class Tools(NamedTuple):
    """What all layers of a run have in common."""

    config: Config
    layout: Layout
    signed: bool
    """whether values are"""
    share: float
    """of a layer in the loss, 1 over their number"""
    dtype: torch.dtype
    """what the products are made in"""


def extra(
    tools: Tools,
    layer: Any,
    centred_BD: Tensor,
    error: Callable[[], Tensor],
    silent_F: Tensor,
    rare_F: Tensor,
) -> Extra | None:
    """AuxK over the layer's features silent longest, at most max(1024, 4 k_aux) of them, and its
    gradients; None if none is rare.

    layer: its W_enc, b_enc, W_dec [F, E]. error: gives target - x_hat, whose last E numbers are
    those that the layer writes to.
    """
    config = tools.config
    if not bool(rare_F.any()) or not config.aux:
        return None
    k_aux = config.k_aux or centred_BD.shape[1] // 2
    rows_A = tools.layout.mine(silent_longest(silent_F, rare_F, k_aux))
    W_enc, b_enc, W_dec = weights = [
        _at_least_float32(w.detach()[rows_A]).requires_grad_()
        for w in (layer.W_enc, layer.b_enc, layer.W_dec)
    ]
    error_BE = error()[:, -W_dec.shape[1] :]
    with fused.products(tools.dtype, layer.W_enc.device):
        loss = losses.aux_k(
            centred_BD.to(W_enc.dtype),
            error_BE.to(W_enc.dtype),
            W_enc,
            b_enc,
            W_dec,
            k_aux,
            tools.signed,
            tools.layout,
        )
    loss = loss * tools.share
    dW_enc, db_enc, dW_dec = torch.autograd.grad(config.aux * loss, weights)
    return Extra(unread(loss), rows_A, dW_enc, db_enc, dW_dec)


def silent_longest(silent_F: Tensor, rare_F: Tensor, k_aux: int) -> Tensor:
    """[A], ascending: of the rare features those silent longest, a bounded number."""
    most = min(int(rare_F.sum()), max(1024, 4 * k_aux))
    return torch.where(rare_F, silent_F, -1).topk(most).indices.sort().values


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
