"""The five kernels on CPUs: screening in low precision, exact values, certified winners.

Shapes: B tokens, F features, D width, N pairs, K pairs per token.
"""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels import reference
from saelab.kernels.cpu import sparse
from saelab.kernels.cpu.jit import threads
from saelab.kernels.cpu.probe import screen_dtype
from saelab.kernels.cpu.screen.exact import score_pairs
from saelab.kernels.cpu.screen.pool import over_batch, over_level
from saelab.kernels.cpu.screen.screen import Problem
from saelab.kernels.cpu.screen.winners import over_features, over_tokens, sides_of, tally
from saelab.sparsify import BuiltIn, Choice, Threshold

_ROWS = 8192  # tokens chosen for at once
_LEVEL_PAIRS = 1 << 25  # tokens x features at once where any number of pairs may pass a level


def need_float32(**tensors: Tensor | None) -> None:
    """Raise ValueError naming a tensor of another dtype or device."""
    for name, tensor in tensors.items():
        if tensor is not None and (tensor.dtype != torch.float32 or tensor.device.type != "cpu"):
            raise ValueError(
                f"the cpu backend needs float32 on the cpu; {name} is {tensor.dtype} "
                f"on {tensor.device}"
            )


def _by_rows(problem: Problem, most: int, pick: Callable[[Problem], Code]) -> Code:
    """`pick` for at most so many tokens at once."""
    if len(problem.x) <= most:
        return pick(problem)
    grads = [None] if problem.grad is None else problem.grad.split(most)
    parts = itertools.zip_longest(problem.x.split(most), grads)
    return Code.concatenate([pick(problem._replace(x=x, grad=grad)) for x, grad in parts])


def choose_for(
    problem: Problem, sparsify: BuiltIn, budget: Tensor | None, level: Tensor | None
) -> Code:
    """The winning pairs of a problem; the caller holds `threads()`."""
    n_tokens, n_features, dtype = len(problem.x), len(problem.W), screen_dtype()
    if isinstance(sparsify, Threshold):
        given_F = (
            np.full(n_features, sparsify.level, np.float32)
            if level is None
            else level.detach().float().numpy()
        )
        level_F = np.broadcast_to(given_F, n_features).astype(np.float64)
        lowest_F = level_F - sparsify.bandwidth / 2
        rows = min(max(_LEVEL_PAIRS // n_features, 64), _ROWS)
        return _by_rows(problem, rows, lambda part: over_level(part, level_F, lowest_F, dtype))
    if sparsify.over == "token":
        return _by_rows(problem, _ROWS, lambda part: over_tokens(part, sparsify.k, dtype))
    if sparsify.over == "batch":
        return over_batch(problem, sparsify.k * n_tokens, dtype)
    shares_F = (
        reference.equal_budget(sparsify.k, n_tokens, n_features) if budget is None else budget
    )
    return over_features(problem, shares_F, dtype)


@contextmanager
def float32_products() -> Iterator[None]:
    """Products of float32 matrices in full precision, which the bounds rely on."""
    before = torch.get_float32_matmul_precision()
    if before == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


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
    need_float32(x=x_BD, W_enc=W_enc_FD, b_enc=b_enc_F, grad=grad, W_dec=W_dec)
    beta = 0.0 if isinstance(sparsify, Threshold) else float(sparsify.beta)
    x, W, b = (tensor.detach().contiguous() for tensor in (x_BD, W_enc_FD, b_enc_F))
    problem = Problem(x, W, b, sparsify.signed, beta)
    if beta and grad is not None and W_dec is not None:
        problem = problem._replace(
            grad=grad.detach().contiguous(), W_dec=W_dec.detach().contiguous()
        )
    with threads(), float32_products():
        return choose_for(problem, sparsify, budget, level)


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
    need_float32(x=x, W_enc=W_enc, b_enc=b_enc, grad=grad, W_dec=W_dec)
    x, W, b = (t.detach().contiguous() for t in (x, W_enc, b_enc))
    problem = Problem(x, W, b, choice.signed, float(choice.beta))
    if choice.beta and grad is not None and W_dec is not None:
        problem = problem._replace(
            grad=grad.detach().contiguous(), W_dec=W_dec.detach().contiguous()
        )
    n_pairs = len(code.features)
    value_N, score_N = np.empty(n_pairs), np.empty(n_pairs)
    pairs = (sparse.tokens_of(code.starts.numpy()), code.features.numpy(), np.arange(n_pairs))
    with threads():
        score_pairs(sides_of(problem), *pairs, value_N, score_N)
    return torch.from_numpy(score_N).clamp_min_(0)


def certified_fraction() -> float:
    """The share of queries (tokens, or features of a feature budget) certified at the first attempt
    since the last call."""
    fraction = tally["certified"] / max(tally["asked"], 1)
    tally.clear()
    return fraction


def by_feature(code: Code) -> tuple[Tensor, Tensor]:
    """`code.by_feature()` by a counting sort, remembered there."""
    if not code._by_feature:
        order_N, starts = sparse.sort_by_feature(code.features.numpy(), code.n_features)
        code._by_feature.update(order=torch.from_numpy(order_N), starts=torch.from_numpy(starts))
    return code.by_feature()


def _loops(*tensors: Tensor) -> list[np.ndarray]:
    return [tensor.detach().contiguous().numpy() for tensor in tensors]


def spmm(code: Code, W_FD: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature]: [B, D]."""
    need_float32(values=code.values, W=W_FD)
    out_BD = torch.empty(code.n_tokens, W_FD.shape[1])
    with threads():
        sparse.spmm(*_loops(code.starts, code.features, code.values, W_FD), out_BD.numpy())
    return out_BD


def spmm_t(code: Code, G_BD: Tensor) -> Tensor:
    """out[f] = sum over the tokens that use f of value x G[token]: [F, D]."""
    need_float32(values=code.values, G=G_BD)
    out_FD = torch.empty(code.n_features, G_BD.shape[1])
    with threads():
        order_N, starts = by_feature(code)
        tokens_N = sparse.tokens_of(code.starts.numpy())
        sparse.spmm_t(
            order_N.numpy(), starts.numpy(), tokens_N, *_loops(code.values, G_BD), out_FD.numpy()
        )
    return out_FD


def sddmm(A_BD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair: [N]."""
    need_float32(A=A_BD, W=W_FD)
    out_N = torch.empty(len(code.features))
    with threads():
        sparse.sddmm(*_loops(code.starts, code.features, A_BD, W_FD), out_N.numpy())
    return out_N


def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F], and on how many tokens it fired (value != 0) [F]
    int64."""
    need_float32(values=code.values)
    sums_F, fired_F = sparse.column_sums(*_loops(code.features, code.values), code.n_features)
    return torch.from_numpy(sums_F), torch.from_numpy(fired_F)
