"""K-SVD (Aharon, Elad and Bruckstein 2006) and MOD (Engan, Aase and Husoy 1999): orthogonal
matching pursuit for the codes in turn with an update of the rows.

Shapes: N tokens, F features (atoms), D width, P pairs, M tokens that use one atom.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code
from saelab.dictionaries.nonnegative import Learned, least_squares
from saelab.dictionaries.pursuit import pursue

POWERS = 4  # steps of power iteration for the best rank-one fit, from the values held
ALIKE = 0.99  # cosine above which one of two rows gives way
FEW = 3  # tokens; an atom of fewer gives way too
LAST = 2  # rounds at the end in which none gives way


def ksvd(
    x: Tensor,
    n_features: int,
    k: int,
    n_rounds: int = 30,
    seed: int = 0,
    update: str = "k-svd",
) -> Learned:
    """A dictionary of unit rows for x [N, D] in k pairs per token.

    update: `k-svd` fits row after row, with its values, to what all others leave; `mod` fits all
    rows at once to the codes. Rows that hardly any token uses, or that are all but another one, are
    replaced by the tokens that are coded worst. Raises ValueError for another update.

    >>> learned = ksvd(x_ND, n_features=50, k=3, n_rounds=80)
    """
    if update not in UPDATES:
        raise ValueError(f"no update {update!r}; there are {', '.join(UPDATES)}")
    random = torch.Generator().manual_seed(seed)
    W_FD, errors, whole = _start(x, n_features, random), [], float(x.square().sum())
    for number in range(n_rounds):
        code = pursue(x, W_FD, k, "orthogonal").code
        W_FD, code = UPDATES[update](x, W_FD, code)
        residual_ND = x - kernels.spmm(code, W_FD)
        errors.append(float(residual_ND.square().sum()) / whole)
        if number < n_rounds - LAST:
            W_FD = _replaced(W_FD, x, code, residual_ND)
    return Learned(W_FD, errors)


def _start(x_ND: Tensor, n_features: int, random: torch.Generator) -> Tensor:
    """Random tokens as rows; random directions beyond their number, and for tokens of 0."""
    chosen_F = torch.randperm(len(x_ND), generator=random)[:n_features]
    rows_FD = torch.randn(n_features, x_ND.shape[1], generator=random).to(x_ND)
    taken_FD = x_ND[chosen_F.to(x_ND.device)]
    is_one_F = taken_FD.norm(dim=1) > 0
    rows_FD[: len(taken_FD)][is_one_F] = taken_FD[is_one_F]
    return rows_FD / rows_FD.norm(dim=1, keepdim=True)


def rows_in_turn(x_ND: Tensor, W_FD: Tensor, code: Code) -> tuple[Tensor, Code]:
    """K-SVD's update: each row and its values become the best rank-one fit to what the other rows
    leave of its tokens, so that ||x - z W|| never rises."""
    W_FD, values_P, tokens_P = W_FD.clone(), code.values.clone(), code.tokens
    residual_ND = x_ND - kernels.spmm(code, W_FD)
    order_P, starts_F = code.by_feature()
    bounds = starts_F.tolist()
    for feature in range(len(W_FD)):
        pairs_M = order_P[bounds[feature] : bounds[feature + 1]]
        if not len(pairs_M):
            continue
        token_M, value_M = tokens_P[pairs_M], values_P[pairs_M]
        target_MD = residual_ND[token_M] + value_M[:, None] * W_FD[feature]
        row_D = W_FD[feature]
        for _ in range(POWERS):
            pulled_D = target_MD.T @ value_M
            if not bool(pulled_D.norm() > 0):  # values that were 0: the row stays
                break
            row_D = pulled_D / pulled_D.norm()
            value_M = target_MD @ row_D
        W_FD[feature], values_P[pairs_M] = row_D, value_M
        residual_ND[token_M] = target_MD - value_M[:, None] * row_D
    return W_FD, code.with_values(values_P)


def rows_at_once(x_ND: Tensor, W_FD: Tensor, code: Code) -> tuple[Tensor, Code]:
    """MOD's update: least squares for all rows; those that no token uses stay."""
    new_FD = least_squares(code.to_dense(), x_ND)
    norm_F = new_FD.norm(dim=1)
    used_F = norm_F > 1e-6
    unit_FD = new_FD / norm_F.clamp_min(1e-20)[:, None]
    scale_F = torch.where(used_F, norm_F, torch.ones_like(norm_F))
    rows_FD = torch.where(used_F[:, None], unit_FD, W_FD)
    return rows_FD, code.with_values(code.values * scale_F[code.features])


UPDATES: dict[str, Callable[[Tensor, Tensor, Code], tuple[Tensor, Code]]] = {
    "k-svd": rows_in_turn,
    "mod": rows_at_once,
}


def _replaced(W_FD: Tensor, x_ND: Tensor, code: Code, residual_ND: Tensor) -> Tensor:
    """The rows with those that give way replaced by the tokens of the largest error."""
    used_F = torch.bincount(code.features[code.values != 0], minlength=len(W_FD))
    cosine_FF = (W_FD @ W_FD.T).abs()
    # Of two alike rows the later one gives way.
    alike_F = (cosine_FF.triu(1) > ALIKE).any(0)
    bad_R = ((used_F < FEW) | alike_F).nonzero()[:, 0][: len(x_ND)]
    if not len(bad_R):
        return W_FD
    worst_R = residual_ND.norm(dim=1).topk(len(bad_R)).indices
    size_R = x_ND[worst_R].norm(dim=1)
    held = size_R > 0
    W_FD = W_FD.clone()
    W_FD[bad_R[held]] = x_ND[worst_R[held]] / size_R[held, None]
    return W_FD
