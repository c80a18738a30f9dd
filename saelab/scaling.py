"""The one number per hook that activations are divided by in training, folded into the weights.

Shapes: D width of the inputs, E of the outputs; of several hooks side by side a scale is a vector.
"""

import torch
from torch import Tensor

from saelab.coder import Coder

Scale = float | Tensor


@torch.no_grad()
def fold(sae: Coder, scale: Scale, scale_out: Scale | None = None) -> None:
    """Make an SAE of inputs divided by `scale` (and targets by `scale_out`) one of raw ones; values
    grow by the target's.

    Of several hooks a scale has one number for each, [D] and [E] with that hook's at its places;
    values then grow by their root mean square, and rows of W_dec keep what is left of the hooks'
    own, so that their norm is 1 for a feature that writes to all hooks alike.

    >>> fold(sae, 3.0)  # sae(3 x) is now 3 times what sae(x) was
    """
    out = scale if scale_out is None else scale_out
    grown = float(out.double().square().mean().sqrt()) if isinstance(out, Tensor) else out
    d_model = sae.d_model // len(sae.layers)
    for i, layer in enumerate(sae.layers):
        layer.W_enc.mul_(grown / _part(scale, slice(i * d_model, (i + 1) * d_model)))
        layer.b_enc.mul_(grown)
        if isinstance(out, Tensor):
            layer.W_dec.mul_(out[-layer.W_dec.shape[1] :] / grown)
        if layer.levels is not None:
            layer.levels.mul_(grown)
    sae.b_dec.mul_(out)
    if sae.W_skip is not None:
        rows = out[:, None] if isinstance(out, Tensor) else out
        sae.W_skip.mul_(rows / scale)


def _part(scale: Scale, place: slice) -> Scale:
    return scale[place] if isinstance(scale, Tensor) else scale
