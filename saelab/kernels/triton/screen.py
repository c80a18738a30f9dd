"""Screening on CUDA GPUs: upper bounds of all scores, tile by tile, from products in half
precision; exact scores of what can win.

Shapes: B tokens, F features, D width, T features of a tile, N pairs.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from saelab.kernels.triton import loops

# Compiled when launched, with plain numbers for compile-time constants.
_loops: Any = loops
_ENTRIES = 1 << 23  # of a tile
_PAIRS = 16  # exact dots of one program


class Problem(NamedTuple):
    """x [B, D], W [F, D], b [F], grad [B, E], W_dec [F, E] (x and W where beta is 0), all float32
    and contiguous."""

    x: Tensor
    W: Tensor
    b: Tensor
    signed: bool
    beta: float
    grad: Tensor
    W_dec: Tensor


class _Scaled(NamedTuple):
    """Rows scaled by powers of two to norms in [1/2, 1) and halved; slack [3, n]: the inverse
    scale, |x - xt|, |x| (scaled)."""

    rows: Tensor
    slack: Tensor


def _scaled(rows: Tensor) -> _Scaled:
    exponent = torch.frexp(rows.double().norm(dim=1)).exponent
    scaled = torch.ldexp(rows.double(), -exponent[:, None])
    half = scaled.half()
    lost = (scaled - half.double()).norm(dim=1)
    unit = torch.ldexp(torch.ones_like(lost), exponent)
    slack = torch.stack([unit, lost, scaled.norm(dim=1)]).float() * (1 + 2.0**-20)
    slack[0] = unit.float()  # a power of two, exact: no room needed
    return _Scaled(half, slack.contiguous())


def _product(x: Tensor, w: Tensor) -> Tensor:
    """x w^T of half-precision rows, added up in float32."""
    if x.device.type == "cpu":  # Triton's interpreter
        return (x.float() @ w.float().T).half()
    allowed = torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction
    torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = False
    try:
        return x @ w.T
    finally:
        torch.backends.cuda.matmul.allow_fp16_reduced_precision_reduction = allowed


def tiles(problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
    """(features [T], upper bounds [B, T]): tile t of n holds the features t, t + n, ..., so that
    the first is a sample."""
    n_tokens, n_features = len(problem.x), len(problem.W)
    n_tiles = -(-n_features // max(32, min(2048, _ENTRIES // n_tokens)))
    x = _scaled(problem.x)
    grad = _scaled(problem.grad) if problem.beta else x
    units = [4 * rows.shape[1] * 2.0**-24 for rows in (x.rows, grad.rows)]
    for t in range(n_tiles):
        features = torch.arange(t, n_features, n_tiles, device=problem.x.device)
        w, bias = _scaled(problem.W[t::n_tiles]), problem.b[t::n_tiles].contiguous()
        d = _scaled(problem.W_dec[t::n_tiles]) if problem.beta else w
        product = _product(x.rows, w.rows)
        boost = _product(grad.rows, d.rows) if problem.beta else product
        out = torch.empty(product.shape, device=product.device)
        grid = (triton.cdiv(out.shape[0], 16), triton.cdiv(out.shape[1], 128))
        slacks = (x.slack, w.slack, grad.slack, d.slack)
        _loops.bounds[grid](
            product,
            boost,
            *slacks,
            bias,
            out,
            *out.shape,
            *units,
            problem.beta,
            problem.signed,
            problem.beta > 0,
            16,
            128,
        )
        yield features, out


def dots(A: Tensor, W: Tensor, tokens: Tensor, features: Tensor) -> Tensor:
    """A[token] . W[feature] of pairs, in float64."""
    out_N = torch.empty(len(tokens), dtype=torch.float64, device=A.device)
    block = min(128, triton.next_power_of_2(A.shape[1]))
    if len(tokens):
        grid = (triton.cdiv(len(tokens), _PAIRS),)
        _loops.exact_dots[grid](
            A, W, tokens, features, out_N, len(tokens), A.shape[1], _PAIRS, block
        )
    return out_N


def exact(problem: Problem, tokens: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """(pre-activations, scores) in float64 of pairs of any shape."""
    flat = tokens.expand(features.shape).reshape(-1), features.reshape(-1)
    value_N = dots(problem.x, problem.W, *flat) + problem.b.double()[flat[1]]
    score_N = value_N.abs() if problem.signed else value_N
    if problem.beta:
        score_N = score_N * (1 + problem.beta * dots(problem.grad, problem.W_dec, *flat).abs())
    return value_N.view(features.shape), score_N.view(features.shape)


def pool(problem: Problem, theta: Tensor | float) -> tuple[Tensor, Tensor]:
    """(tokens, features) of every pair whose bound exceeds theta (a number, or one per feature)."""
    parts = []
    for features, bound_BT in tiles(problem):
        limit = theta[features] if isinstance(theta, Tensor) else theta
        token_N, column_N = (bound_BT > limit).nonzero(as_tuple=True)
        parts.append((token_N, features[column_N]))
    tokens, features = (torch.cat(column) for column in zip(*parts, strict=True))
    return tokens, features
