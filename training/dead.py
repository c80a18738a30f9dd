"""AuxK of one layer: what its features that have fallen silent would add where it errs.

Shapes: B tokens, F features of the layer, A of them that are considered, D width in, E width out.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import fused, losses
from .config import Config
from .layout import Layout
from .updates import Extra, unread


class Tools(NamedTuple):
    """What all layers of a run have in common."""

    config: Config
    layout: Layout
    signed: bool
    """whether values are"""
    share: float
    """of a layer in the loss, 1 over their number"""


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
    config, n_rare = tools.config, int(rare_F.sum())
    if not n_rare or not config.aux:
        return None
    k_aux = config.k_aux or centred_BD.shape[1] // 2
    silent_F = torch.where(rare_F, silent_F, -1)
    rows_A = silent_F.topk(min(n_rare, max(1024, 4 * k_aux))).indices.sort().values
    rows_A = tools.layout.mine(rows_A)
    W_enc, b_enc, W_dec = weights = [
        _at_least_float32(w.detach()[rows_A]).requires_grad_()
        for w in (layer.W_enc, layer.b_enc, layer.W_dec)
    ]
    error_BE = error()[:, -W_dec.shape[1] :]
    with fused.quick_products(config, layer.W_enc.device):
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


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
