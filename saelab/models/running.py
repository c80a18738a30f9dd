"""One forward pass of a model that records the activations, and gradients, at any number of hook
points.

Shapes: C contexts, T positions.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from saelab.errors import UsageError

SCORES = (
    1 << 22
)  # attention scores of one layer: where there are more, each pass fetches fresh memory and takes twice as long
CONTEXTS = 16  # in one forward pass, at most


def contexts_per_pass(model: Any, context: int) -> int:
    """How many contexts of `context` tokens go through the model at once."""
    if str(model.cfg.device).startswith("cpu"):
        return max(1, min(CONTEXTS, SCORES // (model.cfg.n_heads * context**2)))
    return CONTEXTS


class _Seen(Exception):
    """All hooks have fired: the rest of the forward pass is not needed."""


@torch.no_grad()
def activations(model: Any, tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """Activations [C, T, ...] at the hooks (canonical names); the forward pass ends at the last of
    them.

    Raises UsageError for a hook that does not fire.
    """
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any) -> None:
        seen[hook.name] = acts.detach().clone()  # the model may go on to change it in place
        if len(seen) == len(hooks):
            raise _Seen

    try:
        model.run_with_hooks(
            tokens_CT, return_type="logits", fwd_hooks=[(name, keep) for name in hooks]
        )
    except _Seen:
        return {name: seen[name] for name in hooks}
    raise _silent(hooks, seen)


def activations_and_gradients(
    model: Any, tokens_CT: Tensor, hooks: Sequence[str]
) -> dict[str, Tensor]:
    """Activations at the hooks and, as NAME.grad, dL/dx for L the context's summed next-token
    cross-entropy in nats.

    Raises UsageError for a hook that does not fire or does not reach the loss.
    """
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any) -> Tensor:
        seen[hook.name] = acts if acts.requires_grad else acts.detach().clone().requires_grad_()
        return seen[hook.name]

    with torch.enable_grad():
        logits = model.run_with_hooks(
            tokens_CT, return_type="logits", fwd_hooks=[(name, keep) for name in hooks]
        )
        if len(seen) < len(hooks):
            raise _silent(hooks, seen)
        targets = tokens_CT[:, 1:].flatten().to(logits.device)
        loss = torch.nn.functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), targets, reduction="sum"
        )
        gradients = dict(
            zip(
                hooks,
                torch.autograd.grad(loss, [seen[name] for name in hooks], allow_unused=True),
                strict=True,
            )
        )
    if cut := [name for name, gradient in gradients.items() if gradient is None]:
        raise UsageError(
            f"hooks that do not reach the loss and so have no gradient: {', '.join(cut)}"
        )
    return {name: seen[name].detach() for name in hooks} | {
        f"{name}.grad": g for name, g in gradients.items()
    }


def shapes(model: Any, hooks: Sequence[str]) -> dict[str, list[int]]:
    """The shape of one position's activation at each hook, from a probe of two short contexts.

    Raises UsageError for a hook that does not fire, or that gives no float vector per position
    (attention patterns, token ids).
    """
    heads = {model.cfg.n_heads, getattr(model.cfg, "n_key_value_heads", None)}
    length = next(
        n for n in (2, 3, 4) if n not in heads and n <= model.cfg.n_ctx
    )  # so that heads are not taken for positions
    found = activations(model, torch.zeros(2, length, dtype=torch.int64), hooks)
    for name, acts in found.items():
        if acts.shape[:2] != (2, length) or acts.ndim < 3 or not acts.is_floating_point():
            shown = f"{str(acts.dtype).removeprefix('torch.')} of shape {list(acts.shape)} for 2 contexts of {length} tokens"
            raise UsageError(
                f"hook {name!r} gives {shown}: only hooks with a float vector per position can be cached"
            )
    return {name: list(acts.shape[2:]) for name, acts in found.items()}


def _silent(hooks: Sequence[str], seen: dict[str, Tensor]) -> UsageError:
    return UsageError(
        f"hooks that never fire in this model: {', '.join(name for name in hooks if name not in seen)}"
    )
