"""Online orthogonal dictionary learning by Frank-Wolfe (Xue and Lau 2021, arXiv 2103.01484).

The mean of |W x|^3 over unit tokens is made large over the matrices of spectral norm at most 1,
the convex hull of the orthogonal ones. Each batch gives one step towards the matrix of the hull
that the averaged gradient likes best, its polar factor; no step size is tuned. Shapes: N tokens, B
of a batch, D width, which is also the number of rows.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Learned(NamedTuple):
    """An orthogonal dictionary."""

    W: Tensor
    """[D, D] orthogonal: the polar factor of the last iterate"""
    iterate: Tensor
    """[D, D] of spectral norm at most 1"""
    objective: list[float]
    """mean of |W x|^3 of each batch, before its step"""


def frank_wolfe(
    x: Tensor, n_steps: int = 300, batch: int = 2000, seed: int = 0, start: Tensor | None = None
) -> Learned:
    """Rows that make x [N, D], centred, sparse; from a random orthogonal matrix or a given one.

    >>> learned = frank_wolfe(x_ND)
    >>> scores_ND = x_ND @ learned.W.T
    """
    random = torch.Generator().manual_seed(seed)
    width, size = x.shape[1], min(batch, len(x))
    drawn_DD = torch.randn(width, width, generator=random).to(x)
    W_DD = polar(drawn_DD) if start is None else start
    average_DD, objective = torch.zeros_like(W_DD), []
    for step in range(n_steps):
        chosen_B = torch.randint(len(x), (size,), generator=random).to(x.device)
        x_BD = torch.nn.functional.normalize(x[chosen_B], dim=1)
        score_BD = x_BD @ W_DD.T
        objective.append(float(score_BD.abs().pow(3).sum(1).mean()))
        gradient_DD = (score_BD * score_BD.abs()).T @ x_BD / size
        # The average forgets so slowly that the batches' noise dies out, and fast enough to follow
        # the iterate: the paper's rates.
        fresh = (step + 1) ** -0.5
        average_DD = (1 - fresh) * average_DD + fresh * gradient_DD
        share = (step + 1) ** -0.75
        W_DD = (1 - share) * W_DD + share * polar(average_DD)
    return Learned(polar(W_DD), W_DD, objective)


def polar(M_DD: Tensor) -> Tensor:
    """The orthogonal matrix nearest to M: U V^T of its singular value decomposition."""
    U_DD, _, Vt_DD = torch.linalg.svd(M_DD.double())
    return (U_DD @ Vt_DD).to(M_DD)
