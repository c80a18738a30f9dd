"""Activations of whole contexts as a sum: features of a dictionary, its decoder bias, and the error
it leaves.

Shapes: C contexts, T positions, D width of the input, E width of the output, N pairs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.code import Code
from saelab.dictionaries.encoders import check_scores
from saelab.errors import UsageError
from saelab.models import resolve_hook
from saelab.sae import SAE
from saelab.token_norm import check_additive


class Site(NamedTuple):
    """A place where a dictionary stands: it reads activations at one hook and explains those at
    another (an SAE: the same)."""

    read: str
    write: str
    sae: SAE

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


def sites(model: Any, saes: list[SAE]) -> list[Site]:
    """Where each SAE stands in the model, in the order in which the model runs.

    Raises UsageError for a hook that is not in this model, for an SAE of another width, and for two
    that explain one hook.
    """
    places = []
    for sae in saes:
        check_additive(sae.token_norm)
        check_scores(sae.encoder)
        read, write = (resolve_hook(model, name) for name in sae.origin.hooks)
        places.append(Site(read, write, sae))
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
