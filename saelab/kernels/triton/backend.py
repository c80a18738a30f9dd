"""The five kernels on CUDA GPUs.

Shapes: B tokens, F features, D width, N pairs.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from saelab.code import Code
from saelab.kernels import reference
from saelab.kernels.triton import loops
from saelab.kernels.triton.choose import over_batch, over_features, over_level, over_tokens
from saelab.kernels.triton.screen import Problem, dots, exact
from saelab.sparsify import Choice, Sparsify, Threshold

_loops: Any = loops  # compiled when launched, with plain numbers for compile-time constants


def _float32(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise ValueError(f"the triton backend needs float32; {name} is {tensor.dtype}")


def choose(
    x_BD: Tensor,
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    sparsify: Sparsify,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
    budget: Tensor | None = None,
    level: Tensor | None = None,
) -> Code:
    """The winning pairs of centred activations x_BD and their exact values; see
    `saelab.kernels.choose`."""
    _float32(x=x_BD, W_enc=W_enc_FD, b_enc=b_enc_F, grad=grad, W_dec=W_dec)
    x, W, b = (t.detach().contiguous() for t in (x_BD, W_enc_FD, b_enc_F))
    beta = float(sparsify.beta) if isinstance(sparsify, Choice) else 0.0
    boost = [
        (x, W)[i] if t is None or not beta else t.detach().contiguous()
        for i, t in enumerate((grad, W_dec))
    ]
    problem = Problem(x, W, b, sparsify.signed, beta, *boost)
    if isinstance(sparsify, Threshold):
        given_F = (
            torch.full_like(b, sparsify.level)
            if level is None
            else level.detach().to(b).expand(len(b))
        )
        return over_level(problem, given_F.double(), given_F.double() - sparsify.bandwidth / 2)
    if sparsify.over == "token":
        return over_tokens(problem, sparsify.k)
    if sparsify.over == "batch":
        return over_batch(problem, sparsify.k * len(x))
    shares_F = reference.equal_budget(sparsify.k, len(x), len(W)) if budget is None else budget
    return over_features(problem, shares_F.to(x.device))


def scores(
    code: Code,
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    choice: Choice,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
) -> Tensor:
    """The scores of the pairs by the routine that has ranked them: [N] float64; see
    `saelab.kernels.scores`."""
    _float32(x=x, W_enc=W_enc, b_enc=b_enc, grad=grad, W_dec=W_dec)
    plain = [t.detach().contiguous() for t in (x, W_enc, b_enc)]
    boost = [
        plain[i] if t is None or not choice.beta else t.detach().contiguous()
        for i, t in enumerate((grad, W_dec))
    ]
    problem = Problem(*plain, choice.signed, float(choice.beta), *boost)
    return exact(problem, code.tokens, code.features)[1].clamp_min_(0)


def _segments(
    order: Tensor, starts: Tensor, rows: Tensor, values: Tensor, matrix: Tensor
) -> Tensor:
    out = torch.empty(len(starts) - 1, matrix.shape[1], device=matrix.device)
    block = min(512, triton.next_power_of_2(matrix.shape[1]))
    grid = (len(out), triton.cdiv(matrix.shape[1], block))
    if len(out):
        _loops.segment_sums[grid](
            order, starts, rows, values.contiguous(), matrix.contiguous(), out, out.shape[1], block
        )
    return out


def spmm(code: Code, W_FD: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature]: [B, D]."""
    _float32(values=code.values, W=W_FD)
    order_N = torch.arange(len(code.features), device=W_FD.device)
    return _segments(order_N, code.starts, code.features, code.values, W_FD)


def spmm_t(code: Code, G_BD: Tensor) -> Tensor:
    """out[f] = sum over the tokens that use f of value x G[token]: [F, D]."""
    _float32(values=code.values, G=G_BD)
    return _segments(*code.by_feature(), code.tokens, code.values, G_BD)


def sddmm(A_BD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair: [N]."""
    _float32(A=A_BD, W=W_FD)
    return dots(A_BD.contiguous(), W_FD.contiguous(), code.tokens, code.features).float()


def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F], and on how many tokens it fired (value != 0) [F]
    int64."""
    _float32(values=code.values)
    sums_F = torch.empty(code.n_features, device=code.values.device)
    fired_F = torch.empty(code.n_features, dtype=torch.int64, device=code.values.device)
    _loops.segment_counts[(code.n_features,)](
        *code.by_feature(), code.values.contiguous(), sums_F, fired_F
    )
    return sums_F, fired_F
