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
def spliced_run(model: Any, tokens_CT: Tensor, hook: str, replacement_CTD: Tensor) -> Tensor:
    """Logits [C, T, V] with the activation at `hook` replaced from position 1 on; position 0 passes
    untouched."""

    def replace(acts: Tensor) -> Tensor:
        changed = replacement_CTD.reshape(acts.shape).to(acts.dtype).clone()
        changed[:, 0] = acts[:, 0]
        return changed

    return running.logits(model, tokens_CT, {hook: replace})


def next_token_loss(logits_CTV: Tensor, tokens_CT: Tensor) -> Tensor:
    """Cross-entropy in nats of the predictions made at positions 1 to T - 2, [C, T - 2]."""
    return running.next_token_loss(logits_CTV[:, 1:], tokens_CT[:, 1:])


def divergence(clean_CTV: Tensor, spliced_CTV: Tensor) -> Tensor:
    """KL(clean || spliced) in nats of the predictions made at positions 1 to T - 2, [C, T - 2]."""
    return running.kl(clean_CTV[:, 1:-1], spliced_CTV[:, 1:-1])
