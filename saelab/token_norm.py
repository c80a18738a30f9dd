"""Normalisations of each token by itself: those that some published SAEs ask for before they
encode, and that of gradients.

Shapes: B tokens, D width.
"""

from typing import Literal, NamedTuple

from torch import Tensor

from saelab.errors import UsageError

TokenNorm = Literal["", "layer_norm", "constant_norm_rescale"]
EPSILON = 1e-5  # added to the standard deviation itself, as SAELens and OpenAI do


def check_additive(kind: TokenNorm) -> None:
    """Raise UsageError for an SAE whose reconstruction is no sum of fixed parts, one for each
    feature: what takes it apart would be wrong by each token's own scale."""
    if kind:
        raise UsageError(
            f"this SAE normalises each token by itself ({kind}): its reconstruction is no sum of "
            "fixed parts, and is not taken apart here"
        )


class Normalised(NamedTuple):
    """Tokens and how they come back: x = normalised x * size + mean."""

    x: Tensor
    """[B, D]"""
    mean: Tensor | float
    """[B, 1]"""
    size: Tensor | float
    """[B, 1]"""

    def undo(self, x_hat_BD: Tensor) -> Tensor:
        """A reconstruction of the normalised tokens as one of the raw ones."""
        if isinstance(self.size, float):
            return x_hat_BD
        return x_hat_BD * self.size + self.mean


def normalised(x_BD: Tensor, kind: TokenNorm) -> Normalised:
    """Tokens less their mean, by their standard deviation (of D - 1); scaled to the norm sqrt(D);
    or as they are.

    >>> normalised(x_BD, "layer_norm").x.std(1)
    """
    if not kind:
        return Normalised(x_BD, 0.0, 1.0)
    if kind == "constant_norm_rescale":
        size_B1 = x_BD.norm(dim=1, keepdim=True) / x_BD.shape[1] ** 0.5
        return Normalised(x_BD / size_B1, 0.0, size_B1)
    mean_B1 = x_BD.mean(1, keepdim=True)
    centred_BD = x_BD - mean_B1
    std_B1 = centred_BD.std(1, keepdim=True)
    return Normalised(centred_BD / (std_B1 + EPSILON), mean_B1, std_B1)


def unit_gradient(grad_BD: Tensor) -> Tensor:
    """Each token's gradient divided by its root mean square, so that beta means the same at every
    token and layer."""
    return grad_BD / grad_BD.square().mean(1, keepdim=True).sqrt().clamp_min(1e-20)
