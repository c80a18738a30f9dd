"""Where a transcoder's features point before its first step.

Shapes: B tokens, F features, D width in, E width out, of all layers side by side or of one.
"""

import torch
from torch import Tensor

from saelab import kernels
from saelab.coder import Coder
from saelab.sparsify import Choice, Sparsify

from .config import Config
from .layout import Layout

FIRINGS = 64  # of a feature on the average, over which its decoder row is taken


def due(config: Config) -> bool:
    """Whether a run starts so."""
    given = config.target is not None and config.encoder == "fitted"
    return given and config.freeze == "none"


def n_tokens(config: Config) -> int:
    """How many tokens `aim` wants.

    >>> n_tokens(Config(features=4096, k=32))
    8192
    """
    return max(config.batch, FIRINGS * config.features // config.k)


@torch.no_grad()
def aim(sae: Coder, form: Sparsify, x_BD: Tensor, target_BE: Tensor, layout: Layout) -> None:
    """Start a transcoder, or a cross-layer one, at what a sample of its tokens says; form: what
    chooses its pairs there.

    Its encoder rows are random and stay so. An SAE's decoder rows begin as these too, so that every
    feature that fires lessens the error; random ones of a transcoder add to it as often, and by the
    time that they have turned, their features are pushed off the data. Here a feature's decoder row
    is the mean of what is to be written where it fires. Its bias takes the mean input away, or the
    few features along it would fire on every token. The encoder is as long as makes the
    reconstruction nearest to the target.
    """
    missed_BE, x_hat_BE = target_BE - sae.b_dec, torch.zeros_like(target_BE)
    for layer, own_BD in zip(sae.layers, x_BD.chunk(len(sae.layers), 1), strict=True):
        weights = layer.W_enc.detach(), layer.b_enc.detach()
        weights[1].copy_(-(weights[0] @ own_BD.mean(0)))
        code = layout.choose(own_BD.contiguous(), *weights, form)
        width = layer.W_dec.shape[1]
        written_FE = kernels.spmm_t(code, missed_BE[:, -width:].contiguous())
        norm_F1 = written_FE.norm(dim=1, keepdim=True)
        random_FE = layer.W_dec.detach()
        random_FE.copy_(torch.where(norm_F1 > 0, written_FE / norm_F1, random_FE))
        x_hat_BE[:, -width:] += kernels.spmm(code, layer.W_dec.detach())
    x_hat_BE = layout.over_features(x_hat_BE)
    multiple = (missed_BE * x_hat_BE).sum() / x_hat_BE.square().sum()
    for layer in sae.layers:
        layer.W_enc.mul_(multiple)
        layer.b_enc.mul_(multiple)


def form_of(config: Config) -> Sparsify:
    """What chooses a sample's pairs: k per token, also where levels are still to be set."""
    form = config.form
    if isinstance(form, Choice):
        return Choice(form.k, signed=form.signed)
    return Choice(config.k) if config.sparsify == "jumprelu" else form
