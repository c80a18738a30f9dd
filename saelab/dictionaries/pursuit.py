"""Pursuit: codes found at inference time by greedy search over the decoder's rows instead of by the
encoder.

Atoms are found by `choose`, so that no [B, F] product is kept. Shapes: B tokens, F features, D
width, N pairs, S steps.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code
from saelab.errors import UsageError
from saelab.sparsify import Choice

ROWS = 2048  # tokens pursued at a time


class Pursuit(NamedTuple):
    """A code of the targets, and ||target - code W||^2 after each step, [S + 1, B] float64; step 0
    is the empty code."""

    code: Code
    errors: Tensor


def pursue(target: Tensor, W: Tensor, k: int | Tensor, method: str = "gradient") -> Pursuit:
    """Code target [B, D] (x - b_dec) over the rows of W [F, D], of unit norm, in up to k steps (a
    number, or one per token [B]).

    Each step adds the atom of the largest product with the residual and refits, in one of the ways
    of METHODS: `gradient` (coefficients stay non-negative) and `gradient-signed` go down the
    gradient over the atoms so far to the exact minimum (Blumensath and Davies 2008); `orthogonal`
    (signed) solves for all coefficients (Pati et al. 1993). The error never rises. Raises
    UsageError for an unknown method, widths that differ, or k outside 0 to F.
    """
    if method not in METHODS:
        raise UsageError(f"no pursuit {method!r}; there are {', '.join(METHODS)}")
    if target.ndim != 2 or target.shape[1] != W.shape[1]:
        raise UsageError(
            f"the target has shape {list(target.shape)}, W {list(W.shape)}: their widths must agree"
        )
    k_B = torch.as_tensor(k, device=target.device).expand(len(target))
    if len(k_B) and not 0 <= int(k_B.min()) <= int(k_B.max()) <= len(W):
        raise UsageError(
            f"k runs from {int(k_B.min())} to {int(k_B.max())}: "
            f"choose it between 0 and n_features={len(W)}"
        )
    n_steps = int(k_B.max()) if len(k_B) else 0
    with torch.no_grad():
        parts = [
            METHODS[method](t, W, k, n_steps)
            for t, k in zip(target.split(ROWS), k_B.split(ROWS), strict=True)
        ]
    return Pursuit(
        Code.concatenate([part.code for part in parts]),
        torch.cat([part.errors for part in parts], 1),
    )


def _best_atom(residual_BD: Tensor, W_FD: Tensor, active_B: Tensor, signed: bool) -> Tensor:
    """[B] int64: the atom of the largest product (absolute if signed) with the residual; F for
    none, or an inactive token."""
    code = kernels.choose(residual_BD, W_FD, W_FD.new_zeros(len(W_FD)), Choice(1, signed=signed))
    return torch.where(active_B & (code.values != 0), code.features, len(W_FD))


def _code(atoms_BS: Tensor, values_BS: Tensor, n_features: int) -> Code:
    """The code of atoms that ascend within each row; F marks an empty place."""
    held_BS = atoms_BS < n_features
    starts = torch.cat([held_BS.new_zeros(1, dtype=torch.int64), held_BS.sum(1).cumsum(0)])
    return Code(starts, atoms_BS[held_BS], values_BS[held_BS], n_features)


def _gradient(target_BD: Tensor, W_FD: Tensor, k_B: Tensor, n_steps: int, signed: bool) -> Pursuit:
    n_features = len(W_FD)
    atoms_BS = k_B.new_full((len(target_BD), n_steps), n_features)
    values_BS = target_BD.new_zeros(len(target_BD), n_steps)
    residual_BD, errors = target_BD, [_squares(target_BD)]
    for step in range(n_steps):
        new_B = _best_atom(residual_BD, W_FD, k_B > step, signed)
        known_B = (atoms_BS == new_B[:, None]).any(1)
        # F, an empty place, sorts last: the last place is free until the last step.
        atoms_BS[:, -1] = torch.where(known_B, atoms_BS[:, -1], new_B)
        atoms_BS, order_BS = atoms_BS.sort(1)
        values_BS = values_BS.gather(1, order_BS)
        values_BS = _descend(target_BD, residual_BD, W_FD, atoms_BS, values_BS, k_B > step, signed)
        residual_BD = target_BD - kernels.spmm(_code(atoms_BS, values_BS, n_features), W_FD)
        errors.append(_squares(residual_BD))
    return Pursuit(_code(atoms_BS, values_BS, n_features), torch.stack(errors))


def _descend(
    target_BD: Tensor,
    residual_BD: Tensor,
    W_FD: Tensor,
    atoms_BS: Tensor,
    values_BS: Tensor,
    active_B: Tensor,
    signed: bool,
) -> Tensor:
    """New values [B, S] after one exact line search along the gradient over the atoms held;
    inactive tokens keep theirs."""
    held_BS = atoms_BS < len(W_FD)
    code = _code(atoms_BS, values_BS, len(W_FD))
    slope_BS = torch.zeros_like(values_BS)
    slope_BS[held_BS] = kernels.sddmm(residual_BD, W_FD, code)
    if not signed:  # a value of 0 may not fall below it
        slope_BS = torch.where((values_BS == 0) & (slope_BS < 0), 0, slope_BS)
    change_BD = kernels.spmm(code.with_values(slope_BS[held_BS]), W_FD)
    gain_B, square_B = (residual_BD * change_BD).sum(1), change_BD.square().sum(1)
    length_B = torch.where(active_B & (square_B > 0), gain_B / square_B.clamp_min(1e-30), 0)
    moved_BS = values_BS + length_B[:, None] * slope_BS
    if signed:
        return moved_BS
    # Without signs the whole step may leave the allowed region: either what falls below 0 is cut
    # off, or the step ends where the first value reaches 0. Whichever leaves less is taken.
    clamped_BS = moved_BS.clamp_min(0)
    room_BS = torch.where(slope_BS < 0, values_BS / -slope_BS.clamp_max(-1e-30), torch.inf)
    short_B = torch.minimum(length_B, room_BS.min(1).values)
    short_BS = (values_BS + short_B[:, None] * slope_BS).clamp_min(0)
    left_clamped_B, left_short_B = (
        _squares(target_BD - kernels.spmm(_code(atoms_BS, values, len(W_FD)), W_FD))
        for values in (clamped_BS, short_BS)
    )
    return torch.where((left_clamped_B <= left_short_B)[:, None], clamped_BS, short_BS)


def _orthogonal(target_BD: Tensor, W_FD: Tensor, k_B: Tensor, n_steps: int) -> Pursuit:
    """Gram-Schmidt on the chosen atoms: the residual stays orthogonal to all of them, so that none
    is chosen twice."""
    n_tokens, n_features = len(target_BD), len(W_FD)
    atoms_BS = k_B.new_full((n_tokens, n_steps), n_features)
    basis_BSD = target_BD.new_zeros(n_tokens, n_steps, target_BD.shape[1])
    eye_SS = torch.eye(n_steps, dtype=W_FD.dtype, device=W_FD.device)
    triangle_BSS = eye_SS.repeat(n_tokens, 1, 1)
    along_BS = target_BD.new_zeros(n_tokens, n_steps)
    residual_BD, errors = target_BD, [_squares(target_BD)]
    for step in range(n_steps):
        atom_B = _best_atom(residual_BD, W_FD, k_B > step, signed=True)
        row_BD = W_FD[atom_B.clamp_max(n_features - 1)]
        shadow_BS = torch.einsum("bsd,bd->bs", basis_BSD, row_BD)
        rest_BD = row_BD - torch.einsum("bs,bsd->bd", shadow_BS, basis_BSD)
        length_B = rest_BD.norm(dim=1)
        # An atom that lies in the span of those chosen has no rest: rounding alone would pick it.
        new_B = (atom_B < n_features) & (length_B > 1e-4) & ~(atoms_BS == atom_B[:, None]).any(1)
        unit_BD = rest_BD / length_B.clamp_min(1e-30)[:, None]
        basis_BSD[:, step] = torch.where(new_B[:, None], unit_BD, 0)
        # Atom s is the basis times column s of the triangle (R of a QR decomposition); a step that
        # adds no atom keeps its column of the identity, and so a value of 0.
        triangle_BSS[new_B, :, step] = shadow_BS[new_B]
        triangle_BSS[new_B, step, step] = length_B[new_B]
        atoms_BS[:, step] = torch.where(new_B, atom_B, n_features)
        along_BS[:, step] = (basis_BSD[:, step] * residual_BD).sum(1)
        residual_BD = residual_BD - along_BS[:, step, None] * basis_BSD[:, step]
        errors.append(_squares(residual_BD))
    # `along` are coordinates in the basis; R^-1 turns them into coefficients of the atoms.
    solved_BS1 = torch.linalg.solve_triangular(triangle_BSS, along_BS[..., None], upper=True)
    values_BS = solved_BS1.squeeze(2)
    atoms_BS, order_BS = atoms_BS.sort(1)
    return Pursuit(_code(atoms_BS, values_BS.gather(1, order_BS), n_features), torch.stack(errors))


def _squares(residual_BD: Tensor) -> Tensor:
    return residual_BD.double().square().sum(1)


METHODS: dict[str, Callable[[Tensor, Tensor, Tensor, int], Pursuit]] = {
    "gradient": partial(_gradient, signed=False),
    "gradient-signed": partial(_gradient, signed=True),
    "orthogonal": _orthogonal,
}
