"""What a feature's decoder row says by itself: its nearest rows, its match in another SAE, the
tokens it promotes.

Shapes: F features, G features of another SAE, D width, V vocabulary, K kept per feature.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.code import Code
from saelab.kernels import choose
from saelab.sparsify import Choice

ROWS = 4096  # rows that `choose` is given at once
MOST_TSNE = 20_000  # directions; t-SNE takes minutes there, and longer than linearly
RESIDUAL = re.compile(
    r"(blocks\.\d+\.)?"
    r"(hook_resid_(pre|mid|post)|hook_in|hook_out|hook_(attn|mlp)_out|(attn|attn\.o|mlp)\.hook_out)"
    r"|(hook_embed|embed\.hook_out)"
)


def nearest(
    W_FD: Tensor, others_GD: Tensor, n: int, *, signed: bool = False, skip_self: bool = False
) -> tuple[Tensor, Tensor]:
    """The n rows of others_GD with the highest cosine above 0 (|cosine|, if signed) to each row:
    (numbers, cosines) [F, n], filled up with number -1 and cosine 0.

    skip_self: others_GD is W_FD itself, and a row is not its own neighbour. Rows of norm 0 have
    cosine 0 with every row. The rows are tokens and the others features to `choose`, which finds
    the exact ones without the [F, G] product.
    """
    W_FD, others_GD = (normalize(rows.to(W_FD).float(), dim=1) for rows in (W_FD, others_GD))
    choice = Choice(min(n + skip_self, len(others_GD)), signed=signed)
    bias_G = others_GD.new_zeros(len(others_GD))
    index, cosine = [], []
    for first in range(0, len(W_FD), ROWS):
        code = choose(W_FD[first : first + ROWS], others_GD, bias_G, choice)
        own = code.tokens + first == code.features
        code = code.where((code.values != 0) & ~(own & skip_self))
        index_BK, cosine_BK = _table(code, n)
        index.append(index_BK.cpu())
        cosine.append(cosine_BK.cpu())
    return torch.cat(index), torch.cat(cosine)


def _table(code: Code, n: int) -> tuple[Tensor, Tensor]:
    """The n pairs of largest |value| of each token: (features, values) [B, n], filled up with
    feature -1 and value 0."""
    order_N, rank_N = code.by_value(), code.ranks()
    kept = order_N[rank_N[order_N] < n]
    place = (code.tokens[kept], rank_N[kept])
    index_BK = torch.full((code.n_tokens, n), -1, device=code.features.device)
    return (
        index_BK.index_put(place, code.features[kept]),
        code.values.new_zeros(code.n_tokens, n).index_put(place, code.values[kept]),
    )


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
    words_VD = map_DV.T.contiguous()
    bias_V = words_VD.new_zeros(len(words_VD))
    index, value = [], []
    for first in range(0, len(W_dec_FD), ROWS):
        rows_BD = W_dec_FD[first : first + ROWS].to(map_DV)
        for sign in (1, -1):
            index_BK, value_BK = _table(choose(sign * rows_BD, words_VD, bias_V, Choice(n)), n)
            index.append(index_BK.cpu())
            value.append(sign * value_BK.cpu())
    return _pairs(index), _pairs(value)


def _pairs(parts: list[Tensor]) -> Tensor:
    """[F, 2, n] of parts [B, n] that come in twos."""
    return torch.stack([torch.cat(parts[::2]), torch.cat(parts[1::2])], 1)


def head_shares(W_dec_FD: Tensor, n_heads: int) -> Tensor:
    """[F, H]: `shares` of the heads' parts of attention's z, which is stored head after head
    (Kissane et al. 2024, section 4.3)."""
    return shares(W_dec_FD, [W_dec_FD.shape[1] // n_heads] * n_heads)


def shares(W_dec_FD: Tensor, widths: Sequence[int]) -> Tensor:
    """[F, H]: the norm of each decoder row's part of these widths, divided by the sum of the parts'
    norms; 0 for a row of norm 0."""
    parts = W_dec_FD.float().split([*widths], 1)
    norm_FH = torch.stack([part.norm(dim=1) for part in parts], 1)
    return norm_FH / norm_FH.sum(1, keepdim=True).clamp_min(1e-30)


def plane(W_FD: Tensor, alive_F: Tensor, seed: int = 0) -> tuple[str, Tensor]:
    """A map of the live features' directions: (its method, places [F, 2], nan for the others).

    t-SNE by cosine (van der Maaten and Hinton 2008) of up to MOST_TSNE of them, above that the
    plane of the two largest principal components; each scaled to -1 to 1.
    """
    import numpy as np
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    rows_AD = normalize(W_FD.float(), dim=1).cpu()[alive_F].numpy()
    places_F2 = torch.full((len(W_FD), 2), torch.nan)
    name = "t-SNE" if len(rows_AD) <= MOST_TSNE else "PCA"
    if len(rows_AD) < 3 or rows_AD.shape[1] < 2:  # too few to lie in a plane
        return "PCA", places_F2
    if name == "t-SNE":
        perplexity = min(30.0, (len(rows_AD) - 1) / 3)
        options = {"metric": "cosine", "init": "pca", "random_state": seed}
        places_A2 = TSNE(perplexity=perplexity, **options).fit_transform(rows_AD)
    else:
        places_A2 = PCA(2, random_state=seed).fit_transform(rows_AD)
    places_A2 = places_A2 / max(float(np.abs(places_A2).max()), 1e-30)
    places_F2[alive_F] = torch.from_numpy(places_A2.astype(np.float32))
    return name, places_F2
