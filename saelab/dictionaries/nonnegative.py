"""Semi-NMF: x = z W with z >= 0 and rows W of any sign (Ding, Li and Jordan 2010, IEEE TPAMI).

Shapes: N tokens, F features, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.code import Code

RIDGE = 1e-6  # of the mean of a Gram's diagonal, added to it
LEAST = 1e-12  # so that no quotient is 0 / 0


class Learned(NamedTuple):
    """A dictionary that rounds of one method made."""

    W: Tensor
    """[F, D] rows of unit norm"""
    errors: list[float]
    """||x - z W||^2 / ||x||^2 after each round"""


def start(product_NF: Tensor, gram_FF: Tensor) -> Tensor:
    """[N, F]: projections with what is below 0 raised to a little, as a value of 0 stays 0; each
    token's by the one factor that makes the least of its error, so that z = 0 is no better.

    Least squares clamped at 0, the usual start, is far off where rows of W are nearly dependent:
    its values are large and of both signs, and steps take thousands of rounds to shrink them.
    """
    z_NF = product_NF.clamp_min(1e-3 * float(product_NF.abs().mean()) + LEAST)
    made_N = ((z_NF @ gram_FF) * z_NF).sum(1)
    factor_N = (z_NF * product_NF).sum(1) / made_N.clamp_min(LEAST)
    return z_NF * factor_N.clamp_min(1e-3)[:, None]


def step(z_NF: Tensor, product_NF: Tensor, gram_FF: Tensor) -> Tensor:
    """One multiplicative step of z >= 0, which never raises ||x - z W||; values of 0 stay 0.

    product = x W^T, gram = W W^T; with positive and negative parts a = a+ - a-:
    z <- z sqrt((product+ + z gram-) / (product- + z gram+)).
    """
    up_NF = product_NF.clamp_min(0) + z_NF @ (-gram_FF).clamp_min(0)
    down_NF = (-product_NF).clamp_min(0) + z_NF @ gram_FF.clamp_min(0)
    return z_NF * (up_NF / (down_NF + LEAST)).sqrt()


def sparse(x_BD: Tensor, W_FD: Tensor, k: int, n_steps: int) -> Code:
    """Non-negative codes of which the k largest values of each token are kept and fitted anew."""
    gram_FF, product_BF = W_FD @ W_FD.T, x_BD @ W_FD.T
    z_BF = start(product_BF, gram_FF)
    for _ in range(n_steps):
        z_BF = step(z_BF, product_BF, gram_FF)
    if k < len(W_FD):
        kept = z_BF.topk(k, 1)
        # What was dropped stays 0 under further steps, so that these fit the rest alone.
        z_BF = torch.zeros_like(z_BF).scatter(1, kept.indices, kept.values)
        for _ in range(n_steps):
            z_BF = step(z_BF, product_BF, gram_FF)
    return Code.from_mask(z_BF, z_BF > 1e-6 * z_BF.amax(1, keepdim=True))


def semi_nmf(x: Tensor, n_features: int, n_rounds: int = 100, seed: int = 0) -> Learned:
    """Alternate a step of the values with least squares for the rows, from random tokens as rows;
    the error never rises. x [N, D], centred.

    >>> learned = semi_nmf(x_ND - x_ND.mean(0), n_features=256)
    """
    random = torch.Generator().manual_seed(seed)
    chosen_F = torch.randint(len(x), (n_features,), generator=random)
    noise_FD = torch.randn(n_features, x.shape[1], generator=random).to(x)
    W_FD = x[chosen_F] + 0.1 * x.std() * noise_FD  # as a token may be drawn twice
    W_FD = W_FD / W_FD.norm(dim=1, keepdim=True)
    z_NF = start(x @ W_FD.T, W_FD @ W_FD.T)
    whole, errors = float(x.square().sum()), []
    for _ in range(n_rounds):
        z_NF = step(z_NF, x @ W_FD.T, W_FD @ W_FD.T)
        W_FD = least_squares(z_NF, x)
        errors.append(float((x - z_NF @ W_FD).square().sum()) / whole)
    return Learned(W_FD / W_FD.norm(dim=1, keepdim=True).clamp_min(1e-20), errors)


def least_squares(z_NF: Tensor, x_ND: Tensor) -> Tensor:
    """[F, D]: the rows that make the least of ||x - z W||, with a little ridge."""
    gram_FF = z_NF.T @ z_NF
    ridge = RIDGE * gram_FF.diagonal().mean().clamp_min(1e-30)
    gram_FF.diagonal().add_(ridge)
    return torch.linalg.solve(gram_FF, z_NF.T @ x_ND)
