"""Dark matter: the part of an activation that its SAE misses, split into what is linear in the
activation and what is not.

Engels, Smith and Tegmark, Decomposing the Dark Matter of Sparse Autoencoders (arXiv 2410.14670).
Shapes: N tokens, D width.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.dark_matter import linear
from saelab.analysis.dark_matter.linear import Linear, Sums, pieces
from saelab.errors import UsageError
from saelab.evaluation import metrics

Totals = dict[str, np.ndarray]  # of `columns`, by name: [...], or [..., D]


class Map(NamedTuple):
    """What x [N, D] says linearly about an SAE's error."""

    error: Linear
    """predicts it (Q = D)"""
    norm: Linear
    """predicts its squared length (Q = 1)"""


class Decomposition(NamedTuple):
    """x = x_hat + linear + nonlinear, and the scores of these tokens."""

    linear: Tensor
    """[N, D]"""
    nonlinear: Tensor
    """[N, D]"""
    introduced: Tensor | None
    """[N, D] x_hat - truth, where the true signal is known"""
    r2: float
    """of the error from x, pooled over dimensions"""
    r2_dimensions: Tensor
    """[D] the same of each dimension"""
    r2_null: float | None
    """that of an error independent of x"""
    norm_r2: float
    """of the error's squared length from x"""
    fvu: float
    """sum of squares of the error over sum ||x - mean(x)||^2"""
    fvu_linear: float
    """the same of the error's linear part"""
    fvu_nonlinear: float
    """the same of the rest"""


def targets(error: Tensor) -> Tensor:
    """What a Map predicts of an error [N, D]: itself and its squared length, [N, D + 1]."""
    return torch.cat([error, error.square().sum(1, keepdim=True)], 1)


def split(both: Linear) -> Map:
    """A Map from the one regression on `targets`."""
    parts = [
        Linear(both.weight[:, at], both.bias[at], *both[2:])
        for at in (slice(None, -1), slice(-1, None))
    ]
    return Map(*parts)


def fit(x: Tensor, x_hat: Tensor, intercept: bool = True, ridge: float = 0.0) -> Map:
    """The best linear map from activations x [N, D] to the error x - x_hat, and to its squared
    length.

    ridge: added to x's covariance, 0 for plain least squares. Score it on other tokens with
    `decompose`. Raises UsageError for fewer than D + 2 tokens or for shapes that differ.

    >>> map = fit(x_ND, x_hat_ND)
    >>> map.error(x_ND).shape  # [N, D]
    """
    _check(x, x_hat)
    sums = Sums(x.shape[1], x.shape[1] + 1, x.device)
    for part in pieces(len(x)):
        sums.add(x[part], targets(x[part] - x_hat[part]))
    return split(linear.solve(sums, intercept, ridge))


def decompose(x: Tensor, x_hat: Tensor, map: Map, truth: Tensor | None = None) -> Decomposition:
    """Split x [N, D] into the reconstruction, the error's linear part map.error(x), and the rest,
    with their scores.

    On the very tokens of an unregularised fit the two parts are orthogonal, so that fvu =
    fvu_linear + fvu_nonlinear; on others they need not be. truth [N, D]: the planted signal that a
    perfect SAE would return. Raises UsageError for shapes that differ.

    >>> parts = decompose(held_out_ND, sae(held_out_ND), fit(x_ND, sae(x_ND)))
    >>> parts.fvu, parts.fvu_nonlinear
    """
    _check(x, x_hat)
    linear_ND = map.error(x)
    nonlinear_ND = x - x_hat - linear_ND
    rows = (
        (x[part], x[part] - x_hat[part], linear_ND[part], map.norm(x[part]))
        for part in pieces(len(x))
    )
    sums: Totals = {}
    for row in rows:
        for name, column in columns(*row).items():
            sums[name] = sums.get(name, 0) + column.sum(0).cpu().numpy()
    return Decomposition(
        linear=linear_ND,
        nonlinear=nonlinear_ND,
        introduced=None if truth is None else x_hat - truth,
        r2=float(r2(sums)),
        r2_dimensions=torch.from_numpy(r2_dimensions(sums)),
        r2_null=map.error.null,
        norm_r2=float(norm_r2(sums)),
        fvu=float(fvu(sums)),
        fvu_linear=float(fvu(sums, "linear")),
        fvu_nonlinear=float(fvu(sums, "nonlinear")),
    )


def _check(x: Tensor, x_hat: Tensor) -> None:
    if x.ndim != 2 or x.shape != x_hat.shape:
        raise UsageError(
            f"x has shape {list(x.shape)}, x_hat {list(x_hat.shape)}: both must be [tokens, width]"
        )
    if not len(x):
        raise UsageError("no tokens: x and x_hat are empty")


# --- scores: functions of sums over tokens, so that documents can be resampled ------------------


def columns(x: Tensor, error: Tensor, linear: Tensor, norm: Tensor) -> dict[str, Tensor]:
    """[N] or [N, D] float64 by name: per token what the scores are sums of. linear [N, D], norm
    [N, 1]: predictions of error and its square."""
    x, error, linear = x.double(), error.double(), linear.double()
    norm_N = error.square().sum(1)
    return {
        "tokens": torch.ones_like(norm_N),
        "square": x.square().sum(1),
        "norm": norm_N,
        "norm_square": norm_N.square(),
        "norm_miss": (norm_N - norm.double().squeeze(1)).square(),
        "x": x,
        "error": error,
        "error_square": error.square(),
        "linear_square": linear.square(),
        "nonlinear_square": (error - linear).square(),
    }


def _r2(missed: np.ndarray, square: np.ndarray, spread: np.ndarray) -> np.ndarray:
    """1 - missed / spread; 0 for a target that does not vary (its spread is rounding of its sum of
    squares)."""
    constant = spread <= 1e-12 * square
    return np.where(constant, 0.0, 1 - missed / np.where(constant, 1, spread))


def r2_dimensions(sums: Totals) -> np.ndarray:
    """[..., D]: 1 - sum nonlinear_d^2 / sum (error_d - mean)^2 of each dimension; 0 where the error
    does not vary."""
    square = sums["error_square"]
    spread = square - np.square(sums["error"]) / sums["tokens"][..., None]
    return _r2(sums["nonlinear_square"], square, spread)


def r2(sums: Totals) -> np.ndarray:
    """1 - sum ||nonlinear||^2 / sum ||error - mean(error)||^2, pooled over dimensions."""
    square = sums["error_square"].sum(-1)
    spread = square - np.square(sums["error"]).sum(-1) / sums["tokens"]
    return _r2(sums["nonlinear_square"].sum(-1), square, spread)


def norm_r2(sums: Totals) -> np.ndarray:
    """R^2 with which a linear map of x predicts ||error||^2."""
    square = sums["norm_square"]
    return _r2(
        sums["norm_miss"],
        square,
        square - np.square(sums["norm"]) / sums["tokens"],
    )


def energy(sums: Totals, part: str) -> np.ndarray:
    """Sum of squares per token of `error`, `linear` or `nonlinear`."""
    return sums[f"{part}_square"].sum(-1) / sums["tokens"]


def fvu(sums: Totals, part: str = "error") -> np.ndarray:
    """Sum of squares of `error`, `linear` or `nonlinear` over sum ||x - mean(x)||^2."""
    return metrics.ratio(energy(sums, part) * sums["tokens"], metrics.spread(sums))


def share(sums: Totals, part: str) -> np.ndarray:
    """A part's sum of squares as a share of the error's."""
    return metrics.ratio(energy(sums, part), energy(sums, "error"))
