"""Activations of whole contexts as a sum: features of a dictionary, its decoder bias, and the error
it leaves.

Shapes: C contexts, T positions, D width of the input, E width of the output, N pairs.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab import joint, one_layer
from saelab.analysis import frozen
from saelab.code import Code
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.dictionaries.encoders import check_scores
from saelab.errors import UsageError
from saelab.models import resolve_hook
from saelab.origin import part_of
from saelab.sae import SAE
from saelab.token_norm import check_additive


class Site(NamedTuple):
    """A place where a dictionary stands: it reads activations at one hook and explains those at
    another (an SAE: the same)."""

    read: str
    write: str
    sae: SAE
    later: tuple[tuple[str, Tensor], ...] = ()
    """of one layer of a cross-layer transcoder: outputs of later layers, with what its features
    write there [F, E]"""

    def decoders(self) -> dict[str, Tensor]:
        """What the features write [F, E], by the hook that they write to."""
        return {self.write: self.sae.W_dec.detach(), **dict(self.later)}

    def passing(self) -> dict[str, frozen.Passing]:
        """The skip of a transcoder that has one, by the hook that it adds to."""
        if self.sae.W_skip is None:
            return {}
        return {self.write: frozen.Passing(self.read, self.sae.W_skip.detach())}


class Parts(NamedTuple):
    """target = decoded code + shift + skip + error. Position 0 of a context is all error."""

    code: Code
    """of C x T tokens, without pairs at position 0"""
    shift: Tensor
    """[C, T, E]"""
    error: Tensor
    """[C, T, E]"""
    skip: Tensor
    """[C, T, E] what a skip adds, which is linear in what the SAE reads: a path, not an error"""


def fired(code: Code, length: int) -> Code:
    """The code of whole contexts without the pairs of value 0 and those at position 0, on which no
    SAE is trained."""
    return code.where((code.values.detach() != 0) & (code.tokens % length != 0))


@torch.no_grad()
def split(sae: SAE, x_CTD: Tensor, target_CTE: Tensor) -> Parts:
    """The parts of the activations an SAE explains (a transcoder: the target's)."""
    check_additive(sae.token_norm)
    code = fired(sae.encode(x_CTD), x_CTD.shape[1])
    shift_CTE = sae.b_dec.expand(target_CTE.shape).clone()
    shift_CTE[:, 0] = 0
    decoded_CTE = (sae.decode(code) - sae.b_dec).view(target_CTE.shape)
    skip_CTE = torch.zeros_like(shift_CTE)
    for way in Site("", "", sae).passing().values():
        skip_CTE = way.of(x_CTD)
    return Parts(code, shift_CTE, target_CTE - decoded_CTE - shift_CTE - skip_CTE, skip_CTE)


def sites(model: Any, coders: Sequence[Coder]) -> list[Site]:
    """Where each dictionary stands in the model, in the order in which the model runs; a
    cross-layer transcoder stands at each of its layers.

    Raises UsageError for a hook that is not in this model, for an SAE of another width, for two
    that explain one hook, and for one that reads or explains several as one.
    """
    places = [site for coder in coders for site in _standing(model, coder)]
    names = list(dict.fromkeys(name for site in places for name in (site.read, site.write)))
    seen = frozen.run(model, frozen.Frozen(torch.zeros(1, 1, dtype=torch.int64), {}), {}, names)
    for site in places:
        for name, width in ((site.read, site.sae.d_model), (site.write, len(site.sae.b_dec))):
            if seen[name].shape[2] != width:
                have = f"this model has {seen[name].shape[2]} there"
                raise UsageError(
                    f"the SAE for {name} is of width {width}, {have}: it belongs to another model "
                    "or hook"
                )
    writes = [site.write for site in places]
    if twice := sorted({name for name in writes if writes.count(name) > 1}):
        raise UsageError(
            f"more than one SAE explains {', '.join(twice)}: name one SAE for each hook"
        )
    order = list(seen)
    return sorted(places, key=lambda site: order.index(site.write))


def _standing(model: Any, coder: Coder) -> list[Site]:
    """The sites of one dictionary."""
    if isinstance(coder, CrossLayerTranscoder):
        return [_layer(model, coder, i) for i in range(coder.n_layers)]
    check_additive(coder.token_norm)
    check_scores(coder.encoder)
    if part := part_of(coder.origin.more):
        raise UsageError(f"this is {part}, which explains no output alone: name the whole")
    for what, hook in zip(("reads", "explains"), coder.origin.hooks, strict=True):
        if len(places := joint.parts(hook)) > 1:
            raise UsageError(
                f"a crosscoder has no place in the order in which a model runs: this one {what} "
                f"{len(places)} hook points as one ({hook}); name dictionaries of one hook point "
                "each, or a cross-layer transcoder"
            )
    read, write = (resolve_hook(model, name) for name in coder.origin.hooks)
    return [Site(read, write, coder)]


def _layer(model: Any, clt: CrossLayerTranscoder, i: int) -> Site:
    """Layer i: a transcoder of its own output, and what it writes to those of later layers."""
    wide = one_layer.transcoder(clt, i)
    own, *others = wide.W_dec.detach().chunk(clt.n_layers - i, 1)
    weights = {"W_enc": wide.W_enc, "b_enc": wide.b_enc, "W_dec": own.contiguous()}
    if wide.levels is not None:
        weights["levels"] = wide.levels
    weights["b_dec"] = wide.b_dec.detach()[: own.shape[1]]
    sae = SAE.of(weights, wide.sparsify, transcoder=True)
    targets = joint.parts(wide.origin.target)
    sae.origin = replace(wide.origin, target=targets[0])
    read, write, *names = (resolve_hook(model, name) for name in (wide.origin.hook, *targets))
    rows = (rows_FE.contiguous() for rows_FE in others)
    return Site(read, write, sae, tuple(zip(names, rows, strict=True)))
