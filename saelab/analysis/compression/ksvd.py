"""K-SVD for the columns of matrices, which take half of the atoms of a small dictionary: the atoms
start from principal directions, and codes of before are kept where they were better.

Shapes: O signals, I their width, K atoms.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.compression.pursuit import pursuit
from saelab.code import Code
from saelab.dictionaries.ksvd import rows_in_turn


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
    """Atoms, and codes of n_nonzero of them for every signal. A round codes all signals anew by
    orthogonal pursuit, then fits one atom after the other, with its values.

    Only where there are more atoms than principal directions is anything random: the rest are sums
    of two signals each, drawn by `seed`.

        learn(W.T, n_atoms=64, n_nonzero=32, rounds=20).errors
    """
    atoms_KI = _start(signals_OI, n_atoms, seed)
    codes_OK: Tensor | None = None
    errors = []
    for number in range(rounds):
        codes_OK = _coded(signals_OI, atoms_KI, n_nonzero, codes_OK)
        code = Code.from_mask(codes_OK, codes_OK != 0)
        atoms_KI, code = rows_in_turn(signals_OI, atoms_KI, code)
        codes_OK = code.to_dense()
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
