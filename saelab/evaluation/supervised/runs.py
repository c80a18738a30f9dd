"""Running the model on labelled prompts, as it is and with the activations at some positions
replaced.

Shapes: P prompts, D width, V vocabulary.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from saelab.models import running
from saelab.tasks import Task

BATCH = 64
Patch = dict[str, Tensor]  # position -> what stands there instead, [P, D]


def _batches(n: int) -> Iterator[slice]:
    return (slice(first, first + BATCH) for first in range(0, n, BATCH))


def collect(model: Any, prompts: Task, hook: str, positions: list[str]) -> Patch:
    """The activations at a hook (heads flattened) at each position, [P, D], on the model's
    device."""
    acts_by_position: dict[str, list[Tensor]] = {name: [] for name in positions}
    for part in _batches(len(prompts.clean)):
        acts = running.read(model, prompts.clean[part], [hook])[hook].flatten(2)
        for name in positions:
            acts_by_position[name].append(
                acts[torch.arange(len(acts)), prompts.positions[name][part]]
            )
    return {name: torch.cat(parts).float() for name, parts in acts_by_position.items()}


@torch.no_grad()
def logits(model: Any, prompts: Task, hook: str = "", patch: Patch | None = None) -> Tensor:
    """Logits [P, V] at each prompt's last token, with the activations of `patch` in place at the
    hook, all positions at once."""
    pieces = []
    for part in _batches(len(prompts.clean)):

        def replace(acts: Tensor, part: slice = part) -> Tensor:
            changed = acts.flatten(2).clone()
            for name, new_PD in (patch or {}).items():
                changed[torch.arange(len(changed)), prompts.positions[name][part]] = new_PD[
                    part
                ].to(changed)
            return changed.view_as(acts)

        out = running.logits(model, prompts.clean[part], {hook: replace} if patch else {})
        pieces.append(out[torch.arange(len(out)), prompts.positions["end"][part]].float())
    return torch.cat(pieces)
