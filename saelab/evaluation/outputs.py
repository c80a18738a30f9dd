"""The effect on the output embedding of a model that predicts no tokens, with something else at a
hook.

Shapes: C inputs, T positions, D width, N positions that count.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations import Contexts
from saelab.models.encoders import Encoder, classified, encode

Inputs = Callable[[Tensor], Mapping[str, Tensor]]
# Documents [C] to what the model's forward takes for them.


class Effect(NamedTuple):
    """What comes out with the activation at a hook replaced."""

    clean: Tensor
    """[N, D]: the output embedding at the positions that count"""
    spliced: dict[str, Tensor]
    """[N, D] by what was put in place"""
    kl: dict[str, Tensor]
    """[C] by what was put in place: KL(clean || spliced) of the classes, in nats; none without a
    head that classifies"""


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
        untouched = classified(self.model, inputs)
        clean, spliced, kl = untouched.ran.output[counted_CT], {}, {}
        for name, acts_CTD in replaced.items():
            there = counted_CT[..., None].to(acts_CTD.device)

            def put(held: Tensor, new: Tensor = acts_CTD, there: Tensor = there) -> Tensor:
                return torch.where(there, new.to(held), held)

            out = classified(self.model, inputs, {hook: put})
            spliced[name] = out.ran.output[counted_CT]
            if untouched.logits is not None and out.logits is not None:
                kl[name] = _kl(untouched.logits, out.logits)
        return Effect(clean, spliced, kl)


def _kl(clean_CN: Tensor, spliced_CN: Tensor) -> Tensor:
    """[C]: KL(clean || spliced) of N classes' logits, in nats."""
    clean_CN, spliced_CN = (each.double().log_softmax(1) for each in (clean_CN, spliced_CN))
    return (clean_CN.exp() * (clean_CN - spliced_CN)).sum(1)
