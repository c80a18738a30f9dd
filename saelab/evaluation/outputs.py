"""The effect on the output embedding of a model that predicts no tokens, with something else at a
hook.

Shapes: C inputs, T positions, D width, N positions that count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations import Contexts
from saelab.models.encoders import Encoder, encode

Inputs = Callable[[Tensor], Mapping[str, Tensor]]
# Documents [C] to what the model's forward takes for them.


class Effect(NamedTuple):
    """What comes out with the activation at a hook replaced."""

    clean: Tensor
    """[N, D]: the output embedding at the positions that count"""
    spliced: dict[str, Tensor]
    """[N, D] by what was put in place"""


class Outputs(NamedTuple):
    """A model that reads no text, and what it reads: a cache's inputs again.

    effect = Outputs(model, looking.inputs).of(chunk, hook, {"zero": torch.zeros_like(acts_CTD)})
    (effect.clean - effect.spliced["zero"]).square().sum()
    """

    model: Encoder
    inputs: Inputs

    def acts(self, chunk: Contexts, hooks: Sequence[str]) -> dict[str, Tensor]:
        """[C, T, D] by hook point: what the model computes there."""
        return encode(self.model, self.inputs(chunk.documents[:, 0]), read=hooks).acts

    def of(self, chunk: Contexts, hook: str, replaced: Mapping[str, Tensor]) -> Effect:
        """Its outputs with each of the activations [C, T, D] in place where positions count; the
        others stay what they are."""
        inputs, counted_CT = self.inputs(chunk.documents[:, 0]), chunk.counted
        clean = encode(self.model, inputs).output[counted_CT]
        spliced = {}
        for name, acts_CTD in replaced.items():
            there = counted_CT[..., None].to(acts_CTD.device)

            def put(held: Tensor, new: Tensor = acts_CTD, there: Tensor = there) -> Tensor:
                return torch.where(there, new.to(held), held)

            out = encode(self.model, inputs, {hook: put}).output
            spliced[name] = out[counted_CT]
        return Effect(clean, spliced)
