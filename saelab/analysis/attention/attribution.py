"""Where the pre-activation of an attention SAE's feature comes from: heads, source positions,
residual-stream features.

Everything is linear once the attention pattern and the norm's denominator are held, so each split
adds up to the pre-activation. Source: Kissane et al. 2024, "Interpreting Attention Layer Outputs
with Sparse Autoencoders", sections 2 and 4. Shapes: B tokens, F features, H heads, E width of a
head, S source positions, D width, N pairs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import split
from saelab.code import Code
from saelab.dictionaries.encoders import check_scores
from saelab.errors import UsageError
from saelab.features import directions
from saelab.kernels import sddmm
from saelab.sae import SAE
from saelab.token_norm import check_additive

CHUNK = 1 << 24  # numbers of an intermediate product held at once


class ByFeature(NamedTuple):
    """Contributions to one pre-activation, which is the sum of values, errors and bias.

    positions, features, values [n]: the residual features, largest |value| first. errors [S]: what
    the residual SAE leaves unexplained, by position. bias: everything that comes from no residual
    position.
    """

    positions: Tensor
    features: Tensor
    values: Tensor
    errors: Tensor
    bias: float

    def first(self, n: int) -> "ByFeature":
        """With the n strongest features alone."""
        positions, features, values = (part[:n] for part in self[:3])
        return self._replace(positions=positions, features=features, values=values)


def head_shares(sae: SAE, n_heads: int) -> Tensor:
    """[F, H]: `directions.head_shares` of its decoder. Raises UsageError for a width that is no
    multiple of the heads."""
    W_FHE = by_heads(sae.W_dec.detach(), n_heads)
    return directions.head_shares(W_FHE.flatten(1), n_heads)


def bias(sae: SAE, features_N: Tensor) -> Tensor:
    """[N]: b_enc - b_dec . W_enc, the part of a pre-activation that no input contributes."""
    check_additive(sae.token_norm)
    check_scores(sae.encoder)
    W_ND = sae.W_enc.detach()[features_N]
    shift_N = 0 if sae.transcoder else W_ND @ sae.b_dec.detach()
    return sae.b_enc.detach()[features_N] - shift_N


@torch.no_grad()
def by_head(sae: SAE, z_BHE: Tensor, code: Code) -> Tensor:
    """[N, H]: z_h . W_enc[f, slice h] for every pair of the code; with `bias` each row adds up to
    the pair's pre-activation."""
    check_additive(sae.token_norm)
    check_scores(sae.encoder)
    W_FHE = by_heads(sae.W_enc.detach(), z_BHE.shape[1])
    return _chunked(code, z_BHE[0].numel(), lambda b, f: (z_BHE[b] * W_FHE[f]).sum(2))


@torch.no_grad()
def by_source(sae: SAE, pattern_CHTS: Tensor, v_CSHE: Tensor, code: Code) -> Tensor:
    """[N, H, S]: A_h[t, s] (v_h[s] . W_enc[f, slice h]) for every pair of the code over the C x T
    tokens of whole contexts.

    Summed over heads and sources, and with `bias`, it is the pair's pre-activation; summed over
    sources it is `by_head`. Grouped key and value heads are repeated to the number of query heads.
    """
    n_heads, length = pattern_CHTS.shape[1:3]
    v_CSHE = v_CSHE.repeat_interleave(n_heads // v_CSHE.shape[2], 2)
    W_FHE = by_heads(sae.W_enc.detach(), n_heads)
    parts = []
    for context, (pattern_HTS, v_SHE) in enumerate(zip(pattern_CHTS, v_CSHE, strict=True)):
        mine = code.rows(context * length, (context + 1) * length)
        parts.append(brought(W_FHE, pattern_HTS, v_SHE, mine.tokens, mine.features))
    return torch.cat(parts)


def brought(
    W_FHE: Tensor, pattern_HTS: Tensor, v_SHE: Tensor, tokens_N: Tensor, features_N: Tensor
) -> Tensor:
    """[N, H, S]: what sources bring each encoder row at its position of one context, by head."""
    # What a source brings is the same at every position that attends to it, but for the attention.
    features_U, which_N = features_N.unique(return_inverse=True)
    brought_UHS = torch.einsum("she,uhe->uhs", v_SHE, W_FHE[features_U])
    return pattern_HTS.transpose(0, 1)[tokens_N] * brought_UHS[which_N]


def by_residual_feature(
    model: Any, held: frozen.Frozen, sae: SAE, residual: SAE, feature: int, position: int
) -> ByFeature:
    """A feature of `sae` at a position of one frozen context, split over the features of a residual
    SAE at every position.

    `residual` stands anywhere before `sae`. Patterns, norms and MLP outputs between them are held;
    what the held MLPs add counts to the bias. Position 0, on which no SAE is trained, has no
    features: it is all error.
    """
    read, source = sae.origin.hook, residual.origin.hook
    x_SD = frozen.run(model, held, {}, [source])[source][0].detach()
    at = torch.tensor([position]), torch.tensor([feature])
    reading = frozen.reading(model, held, {source: x_SD}, read)
    row = reading.rows(at[0], sae.W_enc.detach()[at[1]])
    nothing_RSD = torch.zeros_like(x_SD)[None]
    gradient_SD = row.gradients.get(source, nothing_RSD)[0]
    code, shift_CSD, error_CSD, _ = split(residual, x_SD[None], x_SD[None])
    values_N = code.values * sddmm(gradient_SD, residual.W_dec.detach(), code)
    rest = row.constants[0] + bias(sae, at[1])[0] + (gradient_SD * shift_CSD[0]).sum()
    order = values_N.abs().argsort(descending=True)
    errors_S = (gradient_SD * error_CSD[0]).sum(1)
    return ByFeature(
        code.tokens[order], code.features[order], values_N[order], errors_S, float(rest)
    )


def by_heads(W_FD: Tensor, n_heads: int) -> Tensor:
    """[F, H, E]: rows cut into heads. Raises UsageError for a width that is no multiple of them."""
    if W_FD.shape[1] % n_heads:
        width = f"width {W_FD.shape[1]} is no multiple of {n_heads} heads"
        raise UsageError(f"{width}: this SAE does not stand on concatenated heads")
    return W_FD.view(len(W_FD), n_heads, -1)


def _chunked(code: Code, per_pair: int, split: Any) -> Tensor:
    """split(tokens, features) for all pairs of the code, so many at a time that the product
    fits."""
    step = max(1, CHUNK // per_pair)
    parts = zip(code.tokens.split(step), code.features.split(step), strict=True)
    return torch.cat([split(tokens_n, features_n) for tokens_n, features_n in parts])
