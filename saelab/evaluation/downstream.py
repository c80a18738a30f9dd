"""The model's loss with an SAE's reconstruction spliced in at a hook point.

Shapes: C contexts, T positions, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor

from saelab.models import running


@torch.no_grad()
def clean_run(model: Any, tokens_CT: Tensor, hooks: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits of the next token [C, T, V] and activations [C, T, D] (heads flattened) at the
    hooks."""
    logits_CTV, acts = running.run(model, tokens_CT, read=hooks)
    return logits_CTV, {name: value.flatten(2) for name, value in acts.items()}


@torch.no_grad()
def spliced_run(
    model: Any, tokens_CT: Tensor, hook: str, replacement_CTD: Tensor, counted_CT: Tensor
) -> Tensor:
    """Logits [C, T, V] with the activation at `hook` replaced at the positions that count; the
    others pass untouched."""

    def replace(acts: Tensor) -> Tensor:
        mask = counted_CT.to(acts.device).view(*counted_CT.shape, *[1] * (acts.ndim - 2))
        return torch.where(mask, replacement_CTD.reshape(acts.shape).to(acts), acts)

    return running.logits(model, tokens_CT, {hook: replace})


def predicting(counted_CT: Tensor) -> Tensor:
    """[C, T] bool: positions that count and whose next token does too; the predictions made there
    make up a loss."""
    next_CT = counted_CT.roll(-1, 1)
    next_CT[:, -1] = False
    return counted_CT & next_CT


def next_token_loss(logits_CTV: Tensor, tokens_CT: Tensor, counted_CT: Tensor) -> Tensor:
    """Cross-entropy in nats of the predictions made where `predicting` says, [P]."""
    loss_CT = running.next_token_loss(logits_CTV, tokens_CT)
    return loss_CT[predicting(counted_CT)[:, :-1]]


def divergence(clean_CTV: Tensor, spliced_CTV: Tensor, counted_CT: Tensor) -> Tensor:
    """KL(clean || spliced) in nats of the predictions made where `predicting` says, [P]."""
    return running.kl(clean_CTV, spliced_CTV)[predicting(counted_CT)]
