"""Least squares from streamed sums: how much of one signal is a linear function of another.

Shapes: N tokens, P regressors, Q targets.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError

PIECE = 4096  # tokens
# Share of the largest variance below which a direction of the regressors is rounding error.
NEGLIGIBLE = 1e-11


def pieces(n_tokens: int) -> Iterator[slice]:
    """Rows that are worked on at once, so that their float64 copies take little memory."""
    return (slice(first, first + PIECE) for first in range(0, n_tokens, PIECE))


class Linear(NamedTuple):
    """y is x @ weight + bias."""

    weight: Tensor
    """[P, Q] float64"""
    bias: Tensor
    """[Q] float64"""
    n_tokens: int
    """it was fitted on"""
    rank: int
    """directions along which x varies in them"""

    def __call__(self, x: Tensor) -> Tensor:
        """Predictions [N, Q] for x [N, P], in x's dtype."""
        return x @ self.weight.to(x) + self.bias.to(x)

    @property
    def null(self) -> float | None:
        """The R^2 on other tokens of targets that have nothing to do with x: -p / (n - p - 1) with
        p = rank.

        None where there are no more tokens than that, which only a ridge can fit on.
        """
        free = self.n_tokens - self.rank - 1
        return -self.rank / free if free > 0 else None


class Sums:
    """Sums and products of regressors and targets in float64: [P, P + Q] numbers, however many
    tokens were added, on the tokens' device."""

    def __init__(
        self, n_regressors: int, n_targets: int, device: torch.device | str = "cpu"
    ) -> None:
        self.n = 0
        self.x_P, self.y_Q, self.xx_PP, self.xy_PQ = (
            torch.zeros(shape, dtype=torch.float64, device=device)
            for shape in (
                (n_regressors,),
                (n_targets,),
                (n_regressors, n_regressors),
                (n_regressors, n_targets),
            )
        )

    def add(self, x: Tensor, y: Tensor) -> None:
        """Add tokens: x [N, P], y [N, Q]."""
        x_NP, y_NQ = x.double(), y.double()
        self.n += len(x_NP)
        self.x_P += x_NP.sum(0)
        self.y_Q += y_NQ.sum(0)
        self.xx_PP.addmm_(x_NP.T, x_NP)
        self.xy_PQ.addmm_(x_NP.T, y_NQ)


def solve(sums: Sums, intercept: bool = True, ridge: float = 0.0) -> Linear:
    """The map with the least mean ||y - x weight - bias||^2 + ridge ||weight||^2 (bias 0 without
    intercept).

    Directions in which x does not vary get weight 0. Raises UsageError for fewer tokens than leave
    the fit and its null defined, P + 2, unless there is a ridge; and for a negative ridge.
    """
    n, n_regressors = sums.n, len(sums.x_P)
    if ridge < 0:
        raise UsageError(f"ridge={ridge} is negative: 0 or more")
    if n < n_regressors + 2 and not ridge:
        raise UsageError(
            f"{n} tokens are too few to fit {n_regressors} regressors: at least "
            f"{n_regressors + 2} are needed, or a ridge above 0"
        )
    mean_P, mean_Q = (
        (sums.x_P / n, sums.y_Q / n)
        if intercept
        else (torch.zeros_like(sums.x_P), torch.zeros_like(sums.y_Q))
    )
    values_P, basis_PP = torch.linalg.eigh(sums.xx_PP / n - torch.outer(mean_P, mean_P))
    kept_P = values_P > NEGLIGIBLE * values_P[-1]
    inverse_P = torch.where(kept_P, 1 / (values_P + ridge), 0)
    weight_PQ = basis_PP @ (
        inverse_P[:, None] * (basis_PP.T @ (sums.xy_PQ / n - torch.outer(mean_P, mean_Q)))
    )
    return Linear(weight_PQ, mean_Q - mean_P @ weight_PQ, n, int(kept_P.sum()))


def fit(x: Tensor, y: Tensor, intercept: bool = True, ridge: float = 0.0) -> Linear:
    """The best linear map from x [N, P] to y [N, Q]; see `solve`. Raises UsageError for too few
    tokens."""
    sums = Sums(x.shape[1], y.shape[1], x.device)
    for part in pieces(len(x)):
        sums.add(x[part], y[part])
    return solve(sums, intercept, ridge)


def r2(y: Tensor, predicted: Tensor) -> float:
    """1 - sum ||y - predicted||^2 / sum ||y - mean(y)||^2, both [N, Q], pooled over targets; the
    mean is that of these tokens."""
    y_NQ, residual_NQ = y.double(), y.double() - predicted.double()
    return float(1 - residual_NQ.square().sum() / (y_NQ - y_NQ.mean(0)).square().sum())
