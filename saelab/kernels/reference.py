"""The kernels in plain torch, dense, on any device and float dtype: the specification the fast
backends must equal.

Shapes: B tokens, F features, D width, N pairs.
"""

import torch
from torch import Tensor

from saelab.code import Code
from saelab.errors import UsageError
from saelab.sparsify import Choice, Own, Sparsify, Threshold, mask_of


def equal_budget(k: int, n_tokens: int, n_features: int) -> Tensor:
    """[F] int64: k x B pairs shared out as equally as whole numbers allow, larger shares spread
    evenly over the features."""
    return (torch.arange(n_features + 1) * (k * n_tokens) // n_features).diff()


def _best_per_row(score_BF: Tensor, budget: int | Tensor) -> Tensor:
    """Mask of the `budget` best entries of each row (a number, or one per row); ties to the lowest
    index."""
    order_BF = torch.sort(score_BF, dim=1, descending=True, stable=True).indices
    rank_BF = torch.empty_like(order_BF)
    rank_BF.scatter_(
        1, order_BF, torch.arange(score_BF.shape[1], device=order_BF.device).expand_as(order_BF)
    )
    return rank_BF < (budget[:, None] if isinstance(budget, Tensor) else budget)


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
    """The winning pairs of centred activations x_BD and their values; see
    `saelab.kernels.choose`."""
    pre_BF = x_BD @ W_enc_FD.T + b_enc_F
    if isinstance(sparsify, Own):
        return Code.from_mask(pre_BF, own_mask(pre_BF, sparsify))
    acts_BF = pre_BF if sparsify.signed else pre_BF.relu()
    if isinstance(sparsify, Threshold):
        level_F = torch.as_tensor(
            sparsify.level if level is None else level, dtype=pre_BF.dtype, device=pre_BF.device
        )
        size_BF = pre_BF.abs() if sparsify.signed else pre_BF
        value_BF = torch.where(size_BF > level_F, pre_BF, 0)
        return Code.from_mask(value_BF, size_BF > level_F - sparsify.bandwidth / 2)
    score_BF = acts_BF.abs()
    if sparsify.beta and grad is not None and W_dec is not None:
        score_BF = score_BF * (1 + sparsify.beta * (grad @ W_dec.T).abs())
    return Code.from_mask(acts_BF, _mask(score_BF, acts_BF, sparsify, budget))


def own_mask(pre_BF: Tensor, own: Own) -> Tensor:
    """[B, F] bool: what a registered sparsifier keeps. Raises UsageError where that is no such
    mask, holds negative pre-activations without being signed, or depends on the other tokens."""
    mask = mask_of(own)
    mask_BF = mask(pre_BF.clone())
    who = f"the sparsifier {own.name!r}"
    if not isinstance(mask_BF, Tensor) or mask_BF.dtype != torch.bool:
        kind = getattr(mask_BF, "dtype", type(mask_BF).__name__)
        raise UsageError(f"{who} gives {kind}: a mask, a tensor of torch.bool, is right")
    if mask_BF.shape != pre_BF.shape:
        shapes = f"{list(mask_BF.shape)} of pre-activations {list(pre_BF.shape)}"
        raise UsageError(f"{who} gives a mask {shapes}: the two must be equal")
    if not own.signed and bool((pre_BF[mask_BF] < 0).any()):
        raise UsageError(f"{who} keeps negative pre-activations: register it with signed=True")
    # One token of the batch by itself: what is saved must code a token alone as in any batch.
    if not torch.equal(mask(pre_BF[-1:].clone()), mask_BF[-1:]):
        raise UsageError(
            f"{who} decides a token differently alone and in a batch of {len(pre_BF)}: it must "
            "look at each token by itself"
        )
    return mask_BF


def _mask(score_BF: Tensor, acts_BF: Tensor, choice: Choice, budget: Tensor | None) -> Tensor:
    n_tokens, n_features = score_BF.shape
    if choice.over == "token":
        return _best_per_row(score_BF, choice.k)
    if choice.over == "batch":
        flat = _best_per_row(score_BF.reshape(1, -1), choice.k * n_tokens)
        return flat.view_as(score_BF) & (acts_BF != 0)
    shares_F = equal_budget(choice.k, n_tokens, n_features) if budget is None else budget
    return _best_per_row(score_BF.T, shares_F.to(score_BF.device)).T & (acts_BF != 0)


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
    """The scores of the pairs, made of the values that were compared: [N] float64; see
    `saelab.kernels.scores`."""
    score_N = code.values.abs()
    if choice.beta and grad is not None and W_dec is not None:
        score_N = score_N * (1 + choice.beta * sddmm(grad, W_dec, code).abs())
    return score_N.double()


def spmm(code: Code, W_FD: Tensor) -> Tensor:
    """out[b] = sum over b's pairs of value x W[feature]: [B, D]."""
    out_BD = W_FD.new_zeros(code.n_tokens, W_FD.shape[1])
    return out_BD.index_add_(
        0, code.tokens, code.values[:, None].to(W_FD.dtype) * W_FD[code.features]
    )


def spmm_t(code: Code, G_BD: Tensor) -> Tensor:
    """out[f] = sum over the tokens that use f of value x G[token]: [F, D]."""
    out_FD = G_BD.new_zeros(code.n_features, G_BD.shape[1])
    return out_FD.index_add_(
        0, code.features, code.values[:, None].to(G_BD.dtype) * G_BD[code.tokens]
    )


def sddmm(A_BD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """A[token] . W[feature] at every pair: [N]."""
    return (A_BD[code.tokens] * W_FD[code.features]).sum(1)


def column_sums(code: Code) -> tuple[Tensor, Tensor]:
    """Per feature the sum of its values [F], and on how many tokens it fired (value != 0) [F]
    int64."""
    sums_F = code.values.new_zeros(code.n_features).index_add_(0, code.features, code.values)
    return sums_F, torch.bincount(code.features[code.values != 0], minlength=code.n_features)
