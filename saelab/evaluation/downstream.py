"""The model's loss with an SAE's reconstruction spliced in at a hook point.

Shapes: C contexts, T positions, D width, V vocabulary.
"""

from typing import Any

import torch
from torch import Tensor


@torch.no_grad()
def clean_run(model: Any, tokens_CT: Tensor, hooks: list[str]) -> tuple[Tensor, dict[str, Tensor]]:
    """Log-probabilities of the next token [C, T, V] and activations [C, T, D] (heads flattened) at
    the hooks."""
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any) -> None:
        seen[hook.name] = acts.detach().flatten(2)

    logits = model.run_with_hooks(
        tokens_CT, return_type="logits", fwd_hooks=[(name, keep) for name in hooks]
    )
    return logits.float().log_softmax(-1), seen


@torch.no_grad()
def spliced_run(model: Any, tokens_CT: Tensor, hook: str, replacement_CTD: Tensor) -> Tensor:
    """Log-probabilities [C, T, V] with the activation at `hook` replaced from position 1 on;
    position 0 passes untouched."""

    def replace(acts: Tensor, hook: Any) -> Tensor:
        changed = replacement_CTD.reshape(acts.shape).to(acts.dtype).clone()
        changed[:, 0] = acts[:, 0]
        return changed

    logits = model.run_with_hooks(tokens_CT, return_type="logits", fwd_hooks=[(hook, replace)])
    return logits.float().log_softmax(-1)


def next_token_loss(logp_CTV: Tensor, tokens_CT: Tensor) -> Tensor:
    """Cross-entropy in nats of the predictions made at positions 1 to T - 2, [C, T - 2]."""
    return -logp_CTV[:, 1:-1].gather(2, tokens_CT[:, 2:, None]).squeeze(2)


def divergence(clean_CTV: Tensor, spliced_CTV: Tensor) -> Tensor:
    """KL(clean || spliced) in nats of the predictions made at positions 1 to T - 2, [C, T - 2]."""
    clean, spliced = clean_CTV[:, 1:-1], spliced_CTV[:, 1:-1]
    return (clean.exp() * (clean - spliced)).sum(-1)
