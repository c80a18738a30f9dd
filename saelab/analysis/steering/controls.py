"""What steering is held against: random directions, and other features that fire about as often.

Shapes: E edits, F features, O width of what is explained, R controls.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.steering.edits import Edit, Push, push
from saelab.sae import SAE
from saelab.statistics.draws import stream

NEAR = 20  # features of the nearest density that a control is drawn from


def random_rows(sae: SAE, n_edits: int, n: int, seed: int = 0) -> Tensor:
    """[R, E, O]: Gaussian directions, n sets of one for each edit."""
    draw = stream("steering", seed)
    return torch.randn(n, n_edits, len(sae.b_dec), generator=draw).to(sae.W_dec)


def similar(
    density_F: np.ndarray, features: Sequence[int], n: int, seed: int = 0
) -> list[list[int]]:
    """n sets of other features, one for each of `features`: drawn from the NEAR whose density is
    the nearest to its own on a logarithmic scale. None is one of `features`, none twice in a set;
    fewer sets where there are not so many live ones.

    >>> similar(index.densities(), [17], n=2)  # [[301], [88]]
    """
    rng = np.random.default_rng(seed)
    with np.errstate(divide="ignore"):
        log_F = np.log(np.asarray(density_F, dtype=np.float64))
    free_F = np.isfinite(log_F)
    free_F[list(features)] = False
    sets: list[list[int]] = []
    drawn = [_near(log_F, free_F, feature, rng) for feature in features]
    for number in range(n):
        chosen: list[int] = []
        for order in drawn:
            left = [int(other) for other in order if int(other) not in chosen]
            if number < len(left):
                chosen.append(left[number])
        if len(chosen) == len(features):
            sets.append(chosen)
    return sets


def _near(
    log_F: np.ndarray, free_F: np.ndarray, feature: int, rng: np.random.Generator
) -> np.ndarray:
    """The free features of nearest density, in a random order."""
    own = log_F[feature] if np.isfinite(log_F[feature]) else log_F[free_F].min(initial=0.0)
    distance_F = np.where(free_F, np.abs(log_F - own), np.inf)
    nearest = np.argsort(distance_F, kind="stable")[: min(NEAR, int(free_F.sum()))]
    return rng.permutation(nearest)


def beside_pushes(
    sae: SAE,
    edits: Sequence[Edit],
    others: Sequence[Sequence[int]],
    n_random: int,
    seed: int = 0,
) -> dict[str, Push]:
    """The edits (`steered`), random directions (`random 1`, ...) and other features (`others 1`,
    ...) of the same length at every position, as `loss_change` takes them."""
    pushes = {"steered": push(sae, edits)}
    for number, rows_EO in enumerate(random_rows(sae, len(edits), n_random, seed), 1):
        pushes[f"random {number}"] = push(sae, edits, rows_EO)
    for number, features in enumerate(others, 1):
        pushes[f"others {number}"] = push(sae, edits, sae.W_dec.detach()[list(features)])
    return pushes
