"""Why a head attends from one position to another: one attention score as a sum over pairs of what
stands at its two ends.

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
from saelab.models import hook_points
from saelab.sae import SAE

TOLERANCE = 1e-3  # of the largest part: a score that the parts miss by more is not q . k / sqrt(E)


class Place(NamedTuple):
    """A head, and where it attends from and to."""

    layer: int
    head: int
    dest: int
    """position that attends"""
    src: int
    """position attended to"""


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
    context over the features of a residual SAE.

    Raises UsageError for a position pair that no causal head has, and where scores are no plain
    product of query and key.
    """
    at = Place(layer, head, dest, src)
    whole = score(model, held, at)
    (read_q, slice_q), (read_k, slice_k) = reads(model, at)
    queries, parts_QE = _parts(model, held, residual, read_q, slice_q, dest)
    keys, parts_KE = _parts(model, held, residual, read_k, slice_k, src)
    scores_QK = parts_QE @ parts_KE.T / parts_QE.shape[1] ** 0.5
    check(scores_QK.sum(), whole, scores_QK.abs().max())
    return QueryKey(queries, keys, scores_QK, whole)


def score(model: Any, held: frozen.Frozen, at: Place) -> float:
    """The attention score before the softmax. Raises UsageError for a place that is not there."""
    length = held.tokens.shape[1]
    if not 0 <= at.src <= at.dest < length:
        raise UsageError(
            f"no attention from position {at.dest} to {at.src}: 0 <= src <= dest < {length}"
        )
    if not (0 <= at.layer < model.cfg.n_layers and 0 <= at.head < model.cfg.n_heads):
        shape = f"{model.cfg.n_layers} layers of {model.cfg.n_heads} heads"
        raise UsageError(
            f"no head {at.head} in layer {at.layer}: this model has {shape}, counted from 0"
        )
    name = f"blocks.{at.layer}.attn.hook_attn_scores"
    scores_HN = frozen.run(model, held, {}, [name])[name][0]
    return float(scores_HN[at.head].view(length, -1)[at.dest, at.src])


def reads(model: Any, at: Place) -> tuple[tuple[str, slice], tuple[str, slice]]:
    """Where a head's query and its key are read: the hook, and the head's columns of the activation
    there. Rotary positions turn both by angles of their positions, which is linear: what they have
    turned is read."""
    known, prefix = hook_points(model), f"blocks.{at.layer}.attn."
    kind = "hook_rot_" if f"{prefix}hook_rot_q" in known else "hook_"
    grouped = getattr(model.cfg, "n_key_value_heads", None) or model.cfg.n_heads
    heads = at.head, at.head * grouped // model.cfg.n_heads
    width = model.cfg.d_head
    q, k = (slice(head * width, (head + 1) * width) for head in heads)
    return (f"{prefix}{kind}q", q), (f"{prefix}{kind}k", k)


def check(total: Tensor, whole: float, largest: Tensor) -> None:
    """Raise UsageError where the parts do not add up to the score: it is no plain product then."""
    if abs(float(total) - whole) > TOLERANCE * max(1.0, float(largest)):
        raise UsageError(
            "the scores of this model are no plain product of query and key (a norm of queries, a "
            f"cap): the parts add up to {float(total):.3f}, the score is {whole:.3f}"
        )


def _parts(
    model: Any, held: frozen.Frozen, sae: SAE, read: str, of_head: slice, at: int
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
    part_NE = frozen.run(model, held, {source: given_NTD}, [read])[read][:, at, of_head]
    return code.features, torch.cat([part_NE[:-2] - part_NE[-1], part_NE[-2:-1]])
