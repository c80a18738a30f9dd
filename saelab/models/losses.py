"""What a model's predictions cost, in pieces that stay in the processor's cache.

Shapes: C contexts, T positions, P predictions, V vocabulary, X what is given of a prediction.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.models.model import Model

PIECE = 1 << 21  # logits at once


def kl(clean_XV: Tensor, other_XV: Tensor) -> Tensor:
    """KL(clean || other) in nats [X...] of logits [X..., V], in pieces."""
    flat = [logits.flatten(0, -2) for logits in (clean_XV, other_XV)]
    pieces = [logits.split(max(1, PIECE // logits.shape[-1])) for logits in flat]
    parts = []
    for clean_NV, other_NV in zip(*pieces, strict=True):
        clean_NV = clean_NV.float().log_softmax(-1)
        parts.append((clean_NV.exp() * (clean_NV - other_NV.float().log_softmax(-1))).sum(-1))
    return torch.cat(parts).view(clean_XV.shape[:-1])


def next_token_loss(logits_CTV: Tensor, tokens_CT: Tensor) -> Tensor:
    """Cross-entropy in nats of the predictions made at positions 0 to T - 2, [C, T - 1], in
    pieces."""
    targets_N = tokens_CT[:, 1:].flatten().to(logits_CTV.device)
    flat_NV = logits_CTV[:, :-1].flatten(0, 1)
    size = max(1, PIECE // flat_NV.shape[-1])
    parts = [
        torch.nn.functional.cross_entropy(piece_NV.float(), piece_N, reduction="none")
        for piece_NV, piece_N in zip(flat_NV.split(size), targets_N.split(size), strict=True)
    ]
    return torch.cat(parts).view(len(tokens_CT), -1)


class Compared(NamedTuple):
    """Of one ending beside the clean one, in nats."""

    loss: Tensor
    """[P]: cross-entropy of the next token"""
    kl: Tensor
    """[P]: KL(clean || this)"""


def head(model: Any) -> Callable[[Tensor], Tensor] | None:
    """What makes logits [..., V] of what the unembedding reads [..., D]; None where that is not
    known, as of a bridge alone."""
    if not isinstance(model, Model) or model.family is None:
        return None
    unembed = model.plain.get_output_embeddings()
    cap = getattr(model.plain.config, "final_logit_softcapping", None)
    if cap is None:
        return unembed
    return lambda states: cap * torch.tanh(unembed(states) / cap)


@torch.no_grad()
def compare(
    model: Any, endings: Mapping[str, Tensor], tokens_CT: Tensor, predicting_CT: Tensor
) -> dict[str, Compared]:
    """Loss and KL of the predictions [P] at the positions marked, of each ending [C, T, X]: what
    the unembedding reads, or logits where `head` is None. The one called `clean` is compared with.

    Never more than PIECE logits of two endings are held at once.
    """
    unembed = head(model) or (lambda logits: logits)
    following_CT = tokens_CT.roll(-1, 1)[predicting_CT].to(endings["clean"].device)
    rows = {name: ending[predicting_CT] for name, ending in endings.items()}
    size = max(1, PIECE // _vocabulary(model, endings["clean"]))
    parts: dict[str, list[Compared]] = {name: [] for name in endings}
    for first in range(0, len(following_CT), size):
        part = slice(first, first + size)
        clean_PV = unembed(rows["clean"][part]).float()
        norm_P = clean_PV.logsumexp(-1)
        chance_PV = (clean_PV - norm_P[:, None]).exp_()
        for name, row in rows.items():
            logits_PV = clean_PV if name == "clean" else unembed(row[part]).float()
            parts[name].append(
                _compared(logits_PV, clean_PV, chance_PV, norm_P, following_CT[part])
            )
    return {
        name: Compared(*map(torch.cat, zip(*each, strict=True))) for name, each in parts.items()
    }


def _vocabulary(model: Any, ending_CTX: Tensor) -> int:
    return ending_CTX.shape[-1] if head(model) is None else model.cfg.d_vocab


def _compared(
    logits_PV: Tensor, clean_PV: Tensor, chance_PV: Tensor, norm_P: Tensor, following_P: Tensor
) -> Compared:
    """sum_v p_v (log p_v - log p'_v), where p = softmax(l): exactly 0 for the same l."""
    other_P = logits_PV.logsumexp(-1)
    loss_P = other_P - logits_PV.gather(1, following_P[:, None]).squeeze(1)
    # The norms go in before the sum: p is rounded, and would carry their difference along with it.
    gap_PV = (clean_PV - logits_PV).sub_((norm_P - other_P)[:, None])
    return Compared(loss_P, gap_PV.mul_(chance_PV).sum(-1))
