"""K-SVD (Aharon, Elad and Bruckstein 2006): a dictionary in which every signal takes a few atoms.

Shapes: O signals, I their width, K atoms.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.compression.pursuit import pursuit

POWERS = 8  # power iterations that find an atom's direction


class Learnt(NamedTuple):
    """A dictionary and the codes over it."""

    atoms_KI: Tensor
    """of unit norm"""
    codes_OK: Tensor
    errors: list[float]
    """||signals - codes atoms||^2 after each round; it never rises"""


@torch.no_grad()
def learn(
    signals_OI: Tensor,
    n_atoms: int,
    n_nonzero: int,
    rounds: int,
    seed: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> Learnt:
    """Atoms, and codes of n_nonzero of them for every signal. Each round codes all signals anew by
    orthogonal pursuit, keeping the codes of before where they were better, and then moves one atom
    after the other to the best direction for the signals that use it, with their values.

    The start is the signals' principal directions; only where there are more atoms than those is
    anything random: the rest are sums of two signals each, drawn by `seed`.

        learn(W.T, n_atoms=64, n_nonzero=32, rounds=20).errors
    """
    atoms_KI = _start(signals_OI, n_atoms, seed)
    codes_OK: Tensor | None = None
    errors = []
    for number in range(rounds):
        codes_OK = _coded(signals_OI, atoms_KI, n_nonzero, codes_OK)
        residual_OI = signals_OI - codes_OK @ atoms_KI
        for k in range(n_atoms):
            _improve(k, residual_OI, atoms_KI, codes_OK)
        errors.append(float((signals_OI - codes_OK @ atoms_KI).double().square().sum()))
        progress(number + 1)
    assert codes_OK is not None
    return Learnt(atoms_KI, codes_OK, errors)


def _start(signals_OI: Tensor, n_atoms: int, seed: int) -> Tensor:
    directions_KI = torch.linalg.svd(signals_OI, full_matrices=False).Vh[:n_atoms]
    draw, n_more = torch.Generator().manual_seed(seed), n_atoms - len(directions_KI)
    pairs = torch.randint(len(signals_OI), (2, n_more), generator=draw).to(signals_OI.device)
    more_KI = signals_OI[pairs[0]] + signals_OI[pairs[1]]
    return torch.cat([directions_KI, torch.nn.functional.normalize(more_KI, dim=1)]).contiguous()


def _coded(
    signals_OI: Tensor, atoms_KI: Tensor, n_nonzero: int, before_OK: Tensor | None
) -> Tensor:
    codes_OK = pursuit(signals_OI, atoms_KI, n_nonzero)
    if before_OK is None:
        return codes_OK
    new_O, old_O = (
        (signals_OI - codes @ atoms_KI).square().sum(1) for codes in (codes_OK, before_OK)
    )
    return torch.where((old_O < new_O)[:, None], before_OK, codes_OK)


def _improve(k: int, residual_OI: Tensor, atoms_KI: Tensor, codes_OK: Tensor) -> None:
    """Atom k and its values as the best product of rank one for the signals that use it; the
    residual follows. An atom that none uses becomes the direction that is coded worst."""
    users = codes_OK[:, k].nonzero().squeeze(1)
    if not len(users):
        worst_I = residual_OI[residual_OI.square().sum(1).argmax()]
        if float(worst_I.norm()) > 0:
            atoms_KI[k] = worst_I / worst_I.norm()
        return
    without_UI = residual_OI[users] + codes_OK[users, k, None] * atoms_KI[k]
    direction_I = atoms_KI[k]
    for _ in range(POWERS):
        direction_I = without_UI.T @ (without_UI @ direction_I)
        direction_I = direction_I / direction_I.norm().clamp_min(1e-30)
    values_U = without_UI @ direction_I
    residual_OI[users] = without_UI - values_U[:, None] * direction_I
    atoms_KI[k] = direction_I
    codes_OK[users, k] = values_U
