"""Signals whose dictionary is known: sparse sums of random atoms, and of the rows of an orthogonal
matrix. Bars are in `bars`.

Shapes: N signals, F atoms, D width, K atoms of a signal.
"""

import torch
from torch import Tensor

from saelab.dictionaries.frank_wolfe import polar
from saelab.statistics.draws import stream


def sparse_signals(
    n: int = 1500,
    width: int = 20,
    n_atoms: int = 50,
    k: int = 3,
    decibels: float = 30,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """(x [N, D], atoms [F, D]) in float64: signals of k random unit atoms each with Gaussian
    values, in noise that lies so far below them, as in Aharon, Elad and Bruckstein 2006."""
    random = stream("sparse signals", seed)
    atoms_FD = torch.randn(n_atoms, width, generator=random, dtype=torch.float64)
    atoms_FD = atoms_FD / atoms_FD.norm(dim=1, keepdim=True)
    chosen_NK = torch.rand(n, n_atoms, generator=random).topk(k, 1).indices
    values_NK = torch.randn(n, k, generator=random, dtype=torch.float64)
    code_NF = torch.zeros(n, n_atoms, dtype=torch.float64).scatter_(1, chosen_NK, values_NK)
    x_ND = code_NF @ atoms_FD
    noise_ND = torch.randn(n, width, generator=random, dtype=torch.float64)
    level = (x_ND.square().mean() / noise_ND.square().mean()).sqrt() * 10 ** (-decibels / 20)
    return x_ND + level * noise_ND, atoms_FD


def orthogonal(n: int, width: int, density: float, seed: int = 0) -> tuple[Tensor, Tensor]:
    """(x [N, D], W [D, D]): x = z W of a random orthogonal W and Bernoulli-Gaussian z, each of
    whose values is not 0 with probability `density`."""
    random = stream("orthogonal dictionary", seed)
    W_DD = polar(torch.randn(width, width, generator=random))
    on_ND = torch.rand(n, width, generator=random) < density
    return (on_ND * torch.randn(n, width, generator=random)) @ W_DD, W_DD


def cosines(true_FD: Tensor, found_FD: Tensor) -> Tensor:
    """[F]: |cosine| of each true row with the found row that it is matched with, one to one, so
    that their sum is the largest."""
    from scipy.optimize import linear_sum_assignment

    unit_FD, other_FD = (
        rows / rows.norm(dim=1, keepdim=True).clamp_min(1e-20) for rows in (true_FD, found_FD)
    )
    cosine_FF = (unit_FD.double() @ other_FD.double().T).abs()
    mine, theirs = linear_sum_assignment(cosine_FF.cpu().numpy(), maximize=True)
    return cosine_FF[mine, theirs]
