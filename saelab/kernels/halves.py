"""Choosing, and decoding, with weights in half precision: a piece of the features at a time in
float32, which holds their values exactly, so that neither all weights nor [B, F] are ever there in
float32.

Shapes: B tokens, F features, D width, N pairs, K a token's budget.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from saelab.code import Code
from saelab.sparsify import Choice, Sparsify, Threshold

DTYPES = (torch.bfloat16, torch.float16)
PIECE = 1 << 22  # numbers of float32 at once


def takes(W: Tensor, sparsify: Sparsify) -> bool:
    """Whether a choice is made here: each token by itself, by what half-precision weights give."""
    by_token = isinstance(sparsify, Choice) and sparsify.over == "token" and not sparsify.beta
    return W.dtype in DTYPES and (by_token or isinstance(sparsify, Threshold))


def choose(
    float32: Callable[..., Code],
    x: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: Choice | Threshold,
    level: Tensor | None = None,
) -> Code:
    """The winning pairs of centred activations x [B, D], and their values in its dtype.

    float32: what chooses with float32 weights, `saelab.kernels.choose`.

    >>> code = halves.choose(kernels.choose, x_BD, W_enc.bfloat16(), b_enc.bfloat16(), Choice(32))
    """
    parts = _parts(float32, x.float(), W_enc, b_enc, sparsify, level)
    code = _best(parts, sparsify.k) if isinstance(sparsify, Choice) else _joined(parts)
    return Code(code.starts, code.features, code.values.to(x.dtype), len(W_enc))


def _parts(
    float32: Callable[..., Code],
    x_BD: Tensor,
    W_enc: Tensor,
    b_enc: Tensor,
    sparsify: Choice | Threshold,
    level: Tensor | None,
) -> Iterator[Code]:
    """The codes of pieces of the features, in order, by the features' own numbers."""
    n_features, width = W_enc.shape
    size = max(1, PIECE // width)
    if isinstance(sparsify, Choice):
        size = max(size, sparsify.k)  # the first piece alone may have to fill a token's budget
    for first in range(0, n_features, size):
        rows = slice(first, first + size)
        W, b = W_enc[rows].float(), b_enc[rows].float()
        here = sparsify
        if isinstance(sparsify, Choice):
            here = replace(sparsify, k=min(sparsify.k, len(W)))
        levels = level if level is None or level.ndim == 0 else level[rows]
        code = float32(x_BD, W, b, here, level=levels)
        yield Code(code.starts, code.features + first, code.values, n_features)


def _best(parts: Iterator[Code], k: int) -> Code:
    """The k best pairs of each token; of equal ones the lowest features: pieces come in order."""
    first = next(parts)
    n_tokens = first.n_tokens
    features_BK, values_BK = (each.view(n_tokens, -1) for each in (first.features, first.values))
    for part in parts:
        features_BK = torch.cat([features_BK, part.features.view(n_tokens, -1)], 1)
        values_BK = torch.cat([values_BK, part.values.view(n_tokens, -1)], 1)
        order_BK = torch.sort(values_BK.abs(), dim=1, descending=True, stable=True).indices
        kept_BK = order_BK[:, :k].sort(dim=1).values  # features go on ascending
        features_BK, values_BK = features_BK.gather(1, kept_BK), values_BK.gather(1, kept_BK)
    starts = torch.arange(n_tokens + 1, device=values_BK.device) * features_BK.shape[1]
    return Code(starts, features_BK.reshape(-1), values_BK.reshape(-1), first.n_features)


def _joined(parts: Iterator[Code]) -> Code:
    """All pairs."""
    codes = list(parts)
    tokens_N, order_N = torch.sort(torch.cat([code.tokens for code in codes]), stable=True)
    counts_B = torch.bincount(tokens_N, minlength=codes[0].n_tokens)
    starts = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
    features_N = torch.cat([code.features for code in codes])[order_N]
    values_N = torch.cat([code.values for code in codes])[order_N]
    return Code(starts, features_N, values_N, codes[0].n_features)


def spmm(code: Code, W: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature], added up in float32: [B, D] in W's
    dtype."""
    out_BD = torch.zeros(code.n_tokens, W.shape[1], device=W.device)
    size = max(1, PIECE // W.shape[1])
    tokens_N = code.tokens
    for first in range(0, len(tokens_N), size):
        pairs = slice(first, first + size)
        rows_ND = W[code.features[pairs]].float() * code.values[pairs, None].float()
        out_BD.index_add_(0, tokens_N[pairs], rows_ND)
    return out_BD.to(W.dtype)
