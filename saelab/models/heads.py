"""What a model predicts tokens with, and whether it predicts any.

Shapes: C contexts, T positions, P predictions, D width, V vocabulary.
"""

import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import running
from saelab.models.hooks import bridge_of
from saelab.models.identity import name_of
from saelab.models.model import Model
from saelab.models.weights import named

Head = Callable[[Tensor], Tensor]

ENDING = "unembed.hook_in"
CLOSE = 1e-5  # of the logits' rms: by how much a head may differ from the model's own
SEEN = 1e-4  # of the logits' rms: what a token may move in the predictions before it
_measured: "weakref.WeakKeyDictionary[Any, Head | None]" = weakref.WeakKeyDictionary()


def head(model: Any) -> Head | None:
    """What makes logits [..., V] of what the unembedding reads [..., D]; None where that is not
    known: a bridge's own unembedding does not do what its model may do to the logits afterwards."""
    if isinstance(model, Model) and model.family is not None:
        return _capped(model.plain.get_output_embeddings(), model.plain.config)
    bridge = bridge_of(model)
    if bridge is None:
        return None
    if bridge not in _measured:
        _measured[bridge] = _measure(bridge)
    return _measured[bridge]


def why_no_losses(model: Any) -> str:
    """Why next-token losses say nothing of this model, in words; "" where they do.

    why_no_losses(models.load("bert"))
    # 'its predictions see the token that they predict: no causal language model'
    """
    if lacking := getattr(model, "lacking", ()):
        return f"it has no head that predicts tokens: its files lack {named(lacking)}"
    tokens_CT = torch.zeros(2, min(4, model.cfg.n_ctx), dtype=torch.int64)
    tokens_CT[1, -1] = 1
    with torch.no_grad():
        logits_CTV = running.logits(model, tokens_CT)[:, :-1]
    if _off(logits_CTV[0], logits_CTV[1]) > SEEN:
        return "its predictions see the token that they predict: it is no causal language model"
    return ""


def refuse_without_losses(model: Any) -> None:
    """Raise UsageError for a model of which next-token losses say nothing."""
    if reason := why_no_losses(model):
        raise UsageError(f"{name_of(model)} has no losses: {reason}; name a causal language model")


def _capped(unembed: Head, config: Any) -> Head:
    cap = getattr(config, "final_logit_softcapping", None)
    if cap is None:
        return unembed
    return lambda states: cap * torch.tanh(unembed(states) / cap)


@torch.no_grad()
def _measure(bridge: Any) -> Head | None:
    """The first of a few heads that gives what the model gives, on a few tokens."""
    tokens_CT = torch.arange(2 * min(4, bridge.cfg.n_ctx)).view(2, -1)
    try:
        logits_CTV, acts = running.run(bridge, tokens_CT, read=[ENDING])
    except UsageError:  # no such hook
        return None
    wanted_PV, states_PD = logits_CTV.flatten(0, 1), acts[ENDING].flatten(0, 1)
    unembed = bridge.unembed
    raw_PV = unembed(states_PD)
    config = getattr(getattr(bridge, "original_model", None), "config", None)
    scale = float((raw_PV * wanted_PV).sum() / raw_PV.square().sum())
    heads = [unembed, _capped(unembed, config), lambda states: unembed(states) * scale]
    return next((one for one in heads if _off(one(states_PD), wanted_PV) < CLOSE), None)


def _off(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the root mean square."""
    if ours.shape != theirs.shape:
        return float("inf")
    return float((ours - theirs).abs().max() / theirs.square().mean().sqrt())
