"""The five kernels on CUDA GPUs.

Shapes: B tokens, F features, D width, N pairs.
"""

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels import reference
from saelab.kernels.triton.choose import over_features, over_tokens
from saelab.kernels.triton.ladder import tally
from saelab.kernels.triton.launch import dots, on_card_of
from saelab.kernels.triton.pool import over_batch, over_level
from saelab.kernels.triton.screen import Problem, exact
from saelab.kernels.triton.segments import counts, sums
from saelab.sparsify import BuiltIn, Choice, Threshold


def _float32(**tensors: Tensor | None) -> None:
    for name, tensor in tensors.items():
        if tensor is not None and tensor.dtype != torch.float32:
            raise ValueError(f"the triton backend needs float32; {name} is {tensor.dtype}")


def choose(
    x_BD: Tensor,
    W_enc_FD: Tensor,
    b_enc_F: Tensor,
    sparsify: BuiltIn,
    *,
    grad: Tensor | None = None,
    W_dec: Tensor | None = None,
    budget: Tensor | None = None,
    level: Tensor | None = None,
) -> Code:
    """The winning pairs of centred activations x_BD and their exact values; see
    `saelab.kernels.choose`."""
    _float32(x=x_BD, W_enc=W_enc_FD, b_enc=b_enc_F, grad=grad, W_dec=W_dec)
    problem = _problem(x_BD, W_enc_FD, b_enc_F, sparsify, grad, W_dec)
    with on_card_of(x_BD):
        return choose_for(problem, sparsify, budget, level)


def _problem(
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: BuiltIn,
    grad: Tensor | None,
    W_dec: Tensor | None,
) -> Problem:
    x, W, b = (t.detach().contiguous() for t in (x, W_enc, b_enc))
    beta = float(sparsify.beta) if isinstance(sparsify, Choice) else 0.0
    left, right = x, W  # where nothing is boosted
    if beta and grad is not None and W_dec is not None:
        left, right = grad.detach().contiguous(), W_dec.detach().contiguous()
    return Problem(x, W, b, sparsify.signed, beta, left, right)


def choose_for(
    problem: Problem, sparsify: BuiltIn, budget: Tensor | None, level: Tensor | None
) -> Code:
    """The winning pairs of a problem, all of whose tensors are on one device."""
    n_tokens, b = len(problem.x), problem.b
    if isinstance(sparsify, Threshold):
        given_F = torch.full_like(b, sparsify.level) if level is None else level.detach().to(b)
        given_F = given_F.expand(len(b)).double()
        return over_level(problem, given_F, given_F - sparsify.bandwidth / 2)
    if sparsify.over == "token":
        return over_tokens(problem, sparsify.k)
    if sparsify.over == "batch":
        return over_batch(problem, sparsify.k * n_tokens)
    shares_F = reference.equal_budget(sparsify.k, n_tokens, len(b)) if budget is None else budget
    return over_features(problem, shares_F.to(b.device))


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
    problem = _problem(x, W_enc, b_enc, choice, grad, W_dec)
    with on_card_of(x):
        return exact(problem, code.tokens, code.features)[1].clamp_min_(0)


def spmm(code: Code, W_FD: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature]: [B, D]."""
    _float32(values=code.values, W=W_FD)
    with on_card_of(W_FD):
        return sums(code.starts, code.features, code.values, W_FD)


def spmm_t(code: Code, G_BD: Tensor) -> Tensor:
    """out[f] = sum over the tokens that use f of value x G[token]: [F, D]."""
    _float32(values=code.values, G=G_BD)
    order_N, starts = code.by_feature()
    with on_card_of(G_BD):
        return sums(starts, code.tokens[order_N], code.values[order_N], G_BD)


def sddmm(A_BD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair: [N]."""
    _float32(A=A_BD, W=W_FD)
    with on_card_of(A_BD):
        return dots(A_BD.contiguous(), W_FD.contiguous(), code.tokens, code.features).float()


def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F], and on how many tokens it fired (value != 0) [F]
    int64."""
    _float32(values=code.values)
    order_N, starts = code.by_feature()
    with on_card_of(code.values):
        return counts(starts, code.values[order_N])


def certified_fraction() -> float:
    """The share of queries since the last call that the first lists certified; 1 if there was
    none."""
    asked, certified = tally["asked"], tally["certified"]
    tally.update(asked=0, certified=0)
    return certified / asked if asked else 1.0
