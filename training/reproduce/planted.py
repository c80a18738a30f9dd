"""Planted truth for the dark-matter reproduction: a signal, dense noise the SAE does not model, and
an error it introduces.

x = x' + delta and x_hat = x' + eta with Gaussian parts. Shapes: N tokens, D width.
"""

import torch
from torch import Tensor

from saelab.analysis.dark_matter import decomposition

WIDTH, FITTED, SCORED = 64, 6_400, 20_000
SEEDS = 5


def draw(
    rank: int, dense: float, introduced: float, n_tokens: int, random: torch.Generator
) -> tuple[Tensor, Tensor]:
    """(x, x_hat), each [N, WIDTH]: a signal of unit variance in the first `rank` dimensions and
    noise of these levels in all."""
    signal = torch.zeros(n_tokens, WIDTH)
    signal[:, :rank] = torch.randn(n_tokens, rank, generator=random)
    noises = [
        torch.randn(n_tokens, WIDTH, generator=random) * level for level in (dense, introduced)
    ]
    return signal + noises[0], signal + noises[1]


def nonlinear_ratio(rank: int, seed: int) -> float:
    """Nonlinear error with dense noise over that without, both beside introduced error of the same
    size (level 1)."""
    random, energies = torch.Generator().manual_seed(seed), []
    for dense in (1.0, 0.0):
        map = decomposition.fit(*draw(rank, dense, 1.0, FITTED, random))
        decomposed = decomposition.decompose(*draw(rank, dense, 1.0, SCORED, random), map)
        energies.append(float(decomposed.nonlinear.square().mean()))
    return energies[0] / energies[1]
