"""What the dictionary misses of each token of a prompt, split into the part that is linear in the
activation and the rest.

Engels, Smith and Tegmark, Decomposing the Dark Matter of Sparse Autoencoders (arXiv 2410.14670).
Shapes: T positions, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.dark_matter.linear import Linear
from saelab.analysis.prompts.features import Read
from saelab.errors import UsageError


class ErrorSplit(NamedTuple):
    """Lengths of error = linear + nonlinear at each position, in the activation's units; 0 at
    position 0, where no SAE is trained; on the CPU."""

    size: Tensor
    """[T]: of the activation"""
    error: Tensor
    """[T]"""
    linear: Tensor
    """[T]: of what a linear map of the activation predicts of the error"""
    nonlinear: Tensor
    """[T]: of the rest; the squares need not add up to the error's, as the parts are not orthogonal
    on each token"""
    effect: Tensor | None
    """[T]: estimated effect of the error on the loss, error . dL/dx, in nats"""
    effect_linear: Tensor | None
    """[T]: that of its linear part"""


@torch.no_grad()
def error_split(read: Read, linear: Linear) -> ErrorSplit:
    """The parts of each token's error, by the map that `saelab dark-matter` fits from activations
    to errors. Raises UsageError for a map of another width, and for a transcoder.

    >>> parts = error_split(activations, maps.error)
    """
    width = read.x.shape[1]
    if read.sae.transcoder:
        raise UsageError("a transcoder misses another activation's parts: its error is not split")
    if tuple(linear.weight.shape) != (width, width):
        raise UsageError(
            f"the map is of width {linear.weight.shape[0]}, the activation of {width}: it belongs "
            "to another run"
        )
    linear_TD = linear(read.x)
    linear_TD[0] = 0
    error_TD = read.error.clone()
    error_TD[0] = 0
    lengths = (part.norm(dim=1).cpu() for part in (read.x, error_TD, linear_TD))
    size_T, error_T, linear_T = lengths
    nonlinear_T = (error_TD - linear_TD).norm(dim=1).cpu()
    if read.gradient is None:
        return ErrorSplit(size_T, error_T, linear_T, nonlinear_T, None, None)
    effects = ((part * read.gradient).sum(1).cpu() for part in (error_TD, linear_TD))
    return ErrorSplit(size_T, error_T, linear_T, nonlinear_T, *effects)
