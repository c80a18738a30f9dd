"""What ranks have to tell each other of the gradients that each has only part of."""

import torch
from torch import Tensor

from saelab.coder import Coder

from . import collectives
from .layout import Layout


def share(sae: Coder, layout: Layout) -> None:
    """Add up what the ranks have of the gradients of parameters that all of them hold."""
    for name, parameter in sae.named_parameters():
        if layout.shares(name) and parameter.grad is not None:
            parameter.grad.copy_(collectives.summed(parameter.grad, "gradients"))


def norm(sae: Coder, layout: Layout) -> Tensor:
    """The norm of the gradient of all parameters."""
    owned = held = torch.zeros((), device=sae.b_dec.device)
    for name, parameter in sae.named_parameters():
        if parameter.grad is not None:
            square = parameter.grad.norm().square()
            owned, held = (owned, held + square) if layout.shares(name) else (owned + square, held)
    return (layout.over_features(owned) + held).sqrt()
