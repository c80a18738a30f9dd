"""Which pairs of residual features make a head attend from one position to another: one attention
score, split both ways.

With the norm's denominator held a score is bilinear in the residual stream at its two positions, so
the split is exact. Source: Kamath et al. 2025, "Tracing Attention Computation Through Feature
Interactions" (QK attribution). Shapes: Q query parts, K key parts, T positions, D width, E width of
a head.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import split
from saelab.errors import UsageError
from saelab.sae import SAE

TOLERANCE = 1e-3  # of the largest part: a score that the parts miss by more is not q . k / sqrt(E)


class QueryKey(NamedTuple):
    """scores [Q, K] add up to the attention score before the softmax, `score`.

    queries, keys: the features of the residual SAE at the two positions; rows and columns are these
    features, then the residual SAE's error, then the rest (biases, its b_dec, and what other
    positions send through layers in between).
    """

    queries: Tensor
    keys: Tensor
    scores: Tensor
    score: float


@torch.no_grad()
def query_key(
    model: Any, held: frozen.Frozen, residual: SAE, layer: int, head: int, dest: int, src: int
) -> QueryKey:
    """Split the score with which `head` of `layer` attends from position dest to src of one frozen
    context.

    Raises UsageError for a position pair that no causal head has, and where scores are no plain
    product of query and key.
    """
    if not 0 <= src <= dest < held.tokens.shape[1]:
        raise UsageError(
            f"no attention from position {dest} to {src}: 0 <= src <= dest < {held.tokens.shape[1]}"
        )
    if not (0 <= layer < model.cfg.n_layers and 0 <= head < model.cfg.n_heads):
        shape = f"{model.cfg.n_layers} layers of {model.cfg.n_heads} heads"
        raise UsageError(f"no head {head} in layer {layer}: this model has {shape}, counted from 0")
    prefix = f"blocks.{layer}.attn."
    scores_HN = frozen.run(model, held, {}, [prefix + "hook_attn_scores"])[
        prefix + "hook_attn_scores"
    ][0]
    queries, parts_QE = _parts(model, held, residual, prefix + "hook_q", head, dest)
    keys, parts_KE = _parts(model, held, residual, prefix + "hook_k", head, src)
    scores_QK = parts_QE @ parts_KE.T / parts_QE.shape[1] ** 0.5
    score = float(scores_HN[head].view(held.tokens.shape[1], -1)[dest, src])
    if abs(float(scores_QK.sum()) - score) > TOLERANCE * max(1.0, float(scores_QK.abs().max())):
        mismatch = f"the parts add up to {float(scores_QK.sum()):.3f}, the score is {score:.3f}"
        raise UsageError(
            "the scores of this model are no plain product of query and key (rotary positions, a "
            f"cap): {mismatch}"
        )
    return QueryKey(queries, keys, scores_QK, score)


def _parts(
    model: Any, held: frozen.Frozen, sae: SAE, read: str, head: int, at: int
) -> tuple[Tensor, Tensor]:
    """The n features on at position `at`; the head's query (key) split into theirs, the error's and
    the rest, [n + 2, E]."""
    source = sae.origin.hook
    x_TD = frozen.run(model, held, {}, [source])[source][0]
    parts = split(sae, x_TD[None], x_TD[None])
    code, shift_D, error_D = parts.code.rows(at, at + 1), parts.shift[0, at], parts.error[0, at]
    features_nD = code.values[:, None] * sae.W_dec[code.features]
    given_NTD = x_TD.repeat(len(features_nD) + 3, 1, 1)
    given_NTD[:, at] = torch.cat(
        [features_nD, torch.stack([error_D, shift_D, torch.zeros_like(shift_D)])]
    )
    arrived_NE = frozen.run(model, held, {source: given_NTD}, [read])[read][:, at]
    heads_NHE = arrived_NE.view(len(arrived_NE), -1, model.cfg.d_head)
    part_NE = heads_NHE[:, head * heads_NHE.shape[1] // model.cfg.n_heads]
    return code.features, torch.cat([part_NE[:-2] - part_NE[-1], part_NE[-2:-1]])
