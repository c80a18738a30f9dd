"""What a feature's decoder row says by itself: its nearest rows, its match in another SAE, the
tokens it promotes.

Shapes: F features, G features of another SAE, D width, V vocabulary, K kept per feature.
"""

import re
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

BLOCK = 2**24  # entries of a product held at once
RESIDUAL = re.compile(
    r"(blocks\.\d+\.)?"
    r"(hook_resid_(pre|mid|post)|hook_in|hook_out|hook_(attn|mlp)_out|(attn|attn\.o|mlp)\.hook_out)"
    r"|(hook_embed|embed\.hook_out)"
)


def nearest(
    W_FD: Tensor, others_GD: Tensor, n: int, *, signed: bool = False, skip_self: bool = False
) -> tuple[Tensor, Tensor]:
    """The n rows of others_GD with the highest cosine (|cosine|, if signed) to each row: (numbers,
    cosines) [F, n].

    skip_self: others_GD is W_FD itself, and a row is not its own neighbour. Rows of norm 0 have
    cosine 0 with every row.
    """
    W_FD, others_GD = (normalize(rows.to(W_FD).float(), dim=1) for rows in (W_FD, others_GD))
    n = min(n, len(others_GD) - skip_self)
    pieces = []
    for first in range(0, len(W_FD), step := max(1, BLOCK // len(others_GD))):
        cosine_BG = W_FD[first : first + step] @ others_GD.T
        score_BG = cosine_BG.abs() if signed else cosine_BG.clone()
        if skip_self:
            score_BG.diagonal(first).fill_(-2)
        index_BK = score_BG.topk(n, dim=1).indices
        pieces.append((index_BK, cosine_BG.gather(1, index_BK)))
    index, cosine = zip(*pieces, strict=True)
    return torch.cat(index).cpu(), torch.cat(cosine).cpu()


def null_cosine(d_model: int, n_features: int, *, signed: bool = False) -> float:
    """Expected highest cosine of a direction with n_features independent ones, all uniform on the
    sphere of D > 2 dimensions.

    The cosine t of two of them has density proportional to (1 - t^2)^((D - 3) / 2); the maximum
    over G has distribution cdf(t)^G. signed: of |cosine|, for which a row and its negative are one
    direction.
    """
    n_steps = 400_000
    t = (torch.arange(n_steps, dtype=torch.float64) + 0.5) * 2 / n_steps - 1
    density = ((d_model - 3) / 2 * torch.log1p(-t.square())).exp()
    cdf = (density.cumsum(0) / density.sum()) ** (2 * n_features if signed else n_features)
    return float((t * cdf.diff(prepend=cdf.new_zeros(1))).sum())


def writes_to_residual(hook: str) -> bool:
    """Whether activations at the hook are added to, or are, the residual stream, so that the
    unembedding reads them."""
    return RESIDUAL.fullmatch(hook) is not None


def output_map(model: Any) -> Tensor:
    """[D, V]: logits per unit of a residual-stream direction, up to the final norm's scale, which
    depends on the token.

    The final norm's weight is folded into the unembedding; a LayerNorm also removes the direction's
    mean. Logits are centred over the vocabulary, because a constant changes no probability. Source:
    nostalgebraist 2020, the logit lens.
    """
    W_DV = model.W_U.detach().float()
    weight_D = getattr(model.ln_final, "weight", None)
    if weight_D is not None:
        offset = 1.0 if getattr(model.cfg, "rmsnorm_uses_offset", False) else 0.0
        W_DV = (weight_D.detach().float() + offset)[:, None] * W_DV
    if not getattr(model.cfg, "uses_rms_norm", False):
        W_DV = W_DV - W_DV.mean(0)
    return W_DV - W_DV.mean(1, keepdim=True)


def output_tokens(W_dec_FD: Tensor, map_DV: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """The n most promoted, then the n most suppressed tokens of each row, strongest first: (token
    ids, logits) [F, 2, n]."""
    n = min(n, map_DV.shape[1] // 2)
    pieces = []
    for first in range(0, len(W_dec_FD), step := max(1, BLOCK // map_DV.shape[1])):
        logits_BV = W_dec_FD[first : first + step].to(map_DV) @ map_DV
        high, low = logits_BV.topk(n, dim=1), logits_BV.topk(n, dim=1, largest=False)
        ids_B2K = torch.stack([high.indices, low.indices], 1)
        pieces.append((ids_B2K, torch.stack([high.values, low.values], 1)))
    index, value = zip(*pieces, strict=True)
    return torch.cat(index).cpu(), torch.cat(value).cpu()
