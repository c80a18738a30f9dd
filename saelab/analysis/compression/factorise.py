"""A matrix as a dictionary times codes, within a number of bits, by the methods of METHODS.

Calibrated methods minimise the change of the matrix's outputs: with the mean of x x^T = L L^T,
||L^T (W - D S)||^2. They factorise L^T W, and take the dictionary back by L^-T. Sources: CoSpaDi
(arXiv 2509.22075), SVD-LLM (arXiv 2403.07378).

Shapes: I inputs, O outputs, K atoms.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.compression.ksvd import learn
from saelab.errors import UsageError
from saelab.models.factors import BITS, Factors


class Plan(NamedTuple):
    """How much is kept, and how long is looked for it."""

    ratio: float
    """share of the matrices' bits that is saved, such as 0.2"""
    rounds: int = 20
    """of K-SVD"""
    seed: int = 0
    """draws what is random where there are more atoms than directions"""
    progress: Callable[[int], object] = lambda done: None
    """told of each round"""


Sought = tuple[Tensor, Tensor]  # [I, K], [K, O]


class Method(NamedTuple):
    """A row of METHODS."""

    does: str
    calibrated: bool
    """whether the moments at the matrix's input count"""
    sparse: bool
    """whether codes are stored with a mask"""
    sought: Callable[[Tensor, int, Plan], Sought]
    """target [I, O], bits, plan -> dictionary and codes"""


def _low_rank(target_IO: Tensor, bits: int, plan: Plan) -> Sought:
    """The best approximation of the rank that fits (Eckart and Young 1936)."""
    rank = bits // (BITS * sum(target_IO.shape))
    U_IK, sizes_K, V_KO = torch.linalg.svd(target_IO, full_matrices=False)
    return U_IK[:, :rank] * sizes_K[:rank], V_KO[:rank]


def _sparse(target_IO: Tensor, bits: int, plan: Plan) -> Sought:
    """A dictionary of which every column takes half of the atoms."""
    n_inputs, n_outputs = target_IO.shape
    n_nonzero = bits // (2 * BITS * n_inputs + (BITS + 2) * n_outputs)
    signals_OI = target_IO.T.float().contiguous()
    learnt = learn(signals_OI, 2 * n_nonzero, n_nonzero, plan.rounds, plan.seed, plan.progress)
    return learnt.atoms_KI.T.to(target_IO), learnt.codes_OK.T.to(target_IO)


METHODS = {
    "cospadi": Method("sparse codes over a calibrated dictionary", True, True, _sparse),
    "whitened-svd": Method("low rank, calibrated", True, False, _low_rank),
    "dictionary": Method("sparse codes, the inputs not looked at", False, True, _sparse),
    "svd": Method("low rank, the inputs not looked at", False, False, _low_rank),
}


def factorise(W_IO: Tensor, L_II: Tensor | None, method: str, plan: Plan) -> Factors:
    """Factors of a matrix, rounded to float16, that take at most 1 - plan.ratio of its bits.

    L: of `whitening`; only calibrated methods read it. Raises UsageError for an unknown method and
    a ratio that leaves no room for one atom.

        factorise(W_IO, whitening(gram, hook), "cospadi", Plan(0.2)).bits
    """
    if method not in METHODS:
        raise UsageError(f"no method {method!r}; there are {', '.join(METHODS)}")
    row, bits = METHODS[method], int((1 - plan.ratio) * BITS * W_IO.numel())
    L_II = L_II if row.calibrated else None
    target_IO = W_IO if L_II is None else L_II.T @ W_IO
    dictionary_IK, codes_KO = row.sought(target_IO, bits, plan)
    if not dictionary_IK.shape[1]:
        size = " x ".join(map(str, W_IO.shape))
        raise UsageError(
            f"ratio={plan.ratio:g} leaves a matrix of {size} no room for one atom: save less"
        )
    if L_II is not None:
        dictionary_IK = torch.linalg.solve_triangular(L_II.T, dictionary_IK, upper=True)
    # Atoms of unit norm, so that neither factor leaves float16's range.
    norms_K = dictionary_IK.norm(dim=0).clamp_min(1e-30)
    dictionary_IK, codes_KO = dictionary_IK / norms_K, codes_KO * norms_K[:, None]
    return Factors(dictionary_IK.half(), codes_KO.half(), row.sparse)
