"""What a model's predictions cost, in pieces of a stated size.

Shapes: C contexts, T positions, P predictions, V vocabulary, X what is given of a prediction.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.models.heads import head

PIECE = 1 << 21  # logits at once, so that they stay in the processor's cache
ROWS = 128  # predictions at once, at least: each piece reads the whole unembedding


def rows_at_once(vocabulary: int) -> int:
    """Of how many predictions logits are held at once."""
    return max(ROWS, PIECE // vocabulary)


def kl(clean_XV: Tensor, other_XV: Tensor) -> Tensor:
    """KL(clean || other) in nats [X...] of logits [X..., V], in pieces."""
    flat = [logits.flatten(0, -2) for logits in (clean_XV, other_XV)]
    pieces = [logits.split(rows_at_once(logits.shape[-1])) for logits in flat]
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
    size = rows_at_once(flat_NV.shape[-1])
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


@torch.no_grad()
def compare(
    model: Any, endings: Mapping[str, Tensor], tokens_CT: Tensor, predicting_CT: Tensor
) -> dict[str, Compared]:
    """Loss and KL of the predictions [P] at the positions marked, of each ending [C, T, X]: what
    the unembedding reads, or logits where `head` is None. The one called `clean` is compared with.

    Logits of `rows_at_once` predictions of two endings are held at once.
    """
    unembed = head(model) or (lambda logits: logits)
    tokens_CT, predicting_CT = (t.to(endings["clean"].device) for t in (tokens_CT, predicting_CT))
    following_P = tokens_CT.roll(-1, 1)[predicting_CT]
    # Picked piece by piece: endings that are logits would not fit a second time.
    rows = {name: ending.flatten(0, 1) for name, ending in endings.items()}
    places_P = predicting_CT.flatten().nonzero().squeeze(1)
    size = rows_at_once(_vocabulary(model, endings["clean"]))
    parts: dict[str, list[Compared]] = {name: [] for name in endings}
    for first in range(0, len(following_P), size):
        part = slice(first, first + size)
        places = places_P[part]
        clean_PV = unembed(rows["clean"][places]).float()
        _, clean_norm_P = _loss_and_norm(clean_PV, following_P[part])
        chance_PV = clean_PV.softmax(-1)
        for name, row in rows.items():
            logits_PV = clean_PV if name == "clean" else unembed(row[places]).float()
            loss_P, norm_P = _loss_and_norm(logits_PV, following_P[part])
            # sum_v p_v (log p_v - log p'_v), exactly 0 where the logits are the same. The norms go
            # in before the sum: p is rounded, and would carry their difference along with it.
            gap_PV = (clean_PV - logits_PV).sub_((clean_norm_P - norm_P)[:, None])
            parts[name].append(Compared(loss_P, torch.linalg.vecdot(chance_PV, gap_PV)))
    return {
        name: Compared(*map(torch.cat, zip(*each, strict=True))) for name, each in parts.items()
    }


def _vocabulary(model: Any, ending_CTX: Tensor) -> int:
    return ending_CTX.shape[-1] if head(model) is None else model.cfg.d_vocab


def _loss_and_norm(logits_PV: Tensor, following_P: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy and log Z [P]. log Z is the loss plus the next token's logit: the loss is one
    pass over the logits, logsumexp three."""
    loss_P = torch.nn.functional.cross_entropy(logits_PV, following_P, reduction="none")
    return loss_P, loss_P + logits_PV.gather(1, following_P[:, None]).squeeze(1)
