"""Reconstructions whose results are known in advance, in the form in which a report measures them.

Shapes: N tokens, D width, L components.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saelab.code import Code
from saelab.coder import Coder

Reconstruct = Callable[[Tensor], tuple[Tensor, Tensor, Code | None]]
# x [N, D] to x_hat [N, D], how many numbers it keeps of each token [N], and the code, if any.


def references(
    target: Any, l0: float, device: torch.device | str = "cpu"
) -> dict[str, Reconstruct]:
    """Reconstructions [N, D] with known results: zero and mean (nothing recovered), identity
    (everything), PCA with as many components as the SAE has pairs per token (its measured l0).

    target: the training split's moments (n, sum [D], second [D, D]) at the hook that is replaced.
    device: where the activations lie.
    """
    mean_D = target.sum / target.n
    covariance_DD = target.second / target.n - torch.outer(mean_D, mean_D)
    n_components = min(max(1, round(l0)), len(mean_D))
    basis_DL = torch.linalg.eigh(covariance_DD).eigenvectors[:, -n_components:]
    basis_DL, mean_D = (tensor.float().to(device) for tensor in (basis_DL, mean_D))
    return {
        "zero": _reference(torch.zeros_like, 0),
        "mean": _reference(mean_D.expand_as, 0),
        "identity": _reference(lambda x: x, len(mean_D)),
        "pca": _reference(lambda x: (x - mean_D) @ basis_DL @ basis_DL.T + mean_D, n_components),
    }


def _reference(x_hat: Callable[[Tensor], Tensor], l0: int) -> Reconstruct:
    return lambda x_ND: (x_hat(x_ND), x_ND.new_full((len(x_ND),), l0), None)


def coded(sae: Coder) -> Reconstruct:
    """An SAE's reconstructions."""

    def reconstruct(x_ND: Tensor) -> tuple[Tensor, Tensor, Code | None]:
        x_hat_ND, code = sae.reconstruct(x_ND)
        return x_hat_ND, torch.bincount(code.tokens[code.values != 0], minlength=len(x_ND)), code

    return reconstruct
