"""The one number per hook that activations are divided by in training, folded into the weights."""

import torch

from saelab.sae import SAE


@torch.no_grad()
def fold(sae: SAE, scale: float, scale_out: float | None = None) -> None:
    """Make an SAE of inputs divided by `scale` (and targets by `scale_out`) one of raw ones; values
    grow by the target's.

    >>> fold(sae, 3.0)  # sae(3 x) is now 3 times what sae(x) was
    """
    out = scale if scale_out is None else scale_out
    sae.W_enc.mul_(out / scale)
    sae.b_enc.mul_(out)
    sae.b_dec.mul_(out)
    if sae.W_skip is not None:
        sae.W_skip.mul_(out / scale)
    if sae.levels is not None:
        sae.levels.mul_(out)
