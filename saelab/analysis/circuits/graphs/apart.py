"""One prompt taken apart for an attribution graph: the model's run held, and at every place what
features write, their bias, and the error.

Shapes: T positions, D width, E width of an output, F features, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import Parts, Site, sites, split
from saelab.code import Code
from saelab.coder import Coder
from saelab.errors import UsageError
from saelab.kernels import spmm

FEATURES = 7500  # in a graph, at most
MLP_OUT = "mlp.hook_out"


class Place(NamedTuple):
    """One hook whose activation is taken apart. site: the dictionary there, None for an MLP without
    one (all error)."""

    hook: str
    site: Site | None
    parts: Parts


class Local(NamedTuple):
    """One prompt taken apart: what a graph is drawn from. embedding [T, D]; logits [V]: the model's
    at the last position."""

    held: frozen.Frozen
    places: list[Place]
    embedding: Tensor
    logits: Tensor


@torch.no_grad()
def take_apart(model: Any, tokens_T: Tensor, saes: Sequence[Coder], most: int = FEATURES) -> Local:
    """Run one prompt and split it at every place: those of the SAEs, and every MLP that none of
    them explains. A cross-layer transcoder's features are at the layer that they read.

    Beyond `most` features the weakest count to the errors. Raises UsageError as `sites` does, for
    an SAE of the embedding, whose features have no inputs, and for one that reads an MLP's output,
    which is not linear in what comes before.
    """
    standing = sites(model, saes)
    if any(site.write == frozen.EMBEDDING for site in standing):
        raise UsageError(
            f"an SAE at {frozen.EMBEDDING} has no inputs to trace: name SAEs of later hooks"
        )
    if past := [site.read for site in standing if site.read.endswith(MLP_OUT)]:
        raise UsageError(
            f"the SAE at {past[0]} reads what the MLP has computed, which is not linear in what "
            f"comes before: name a transcoder (`saelab train --target {past[0]}`)"
        )
    held = frozen.freeze(model, tokens_T[None])
    names = [
        frozen.EMBEDDING,
        frozen.LOGITS,
        *(name for site in standing for name in (site.read, site.write)),
    ]
    acts = frozen.run(model, held, {}, names)
    parts = [split(site.sae, acts[site.read], acts[site.write]) for site in standing]
    values_N = torch.cat([one.code.values.abs() for one in parts]) if parts else torch.zeros(0)
    least = values_N.topk(most).values[-1] if len(values_N) > most else 0.0
    places = _places(standing, parts, float(least))
    bare = [name for name in held.held if name.endswith(MLP_OUT) and name not in acts]
    starts = torch.zeros(len(tokens_T) + 1, dtype=torch.int64, device=tokens_T.device)
    for name in bare:
        nothing = torch.zeros_like(held.held[name])
        empty = Code(starts, starts[:0], nothing.flatten()[:0], 0)
        places.append(Place(name, None, Parts(empty, nothing, held.held[name], nothing)))
    return Local(held, places, acts[frozen.EMBEDDING][0], acts[frozen.LOGITS][0, -1])


def _places(standing: list[Site], parts: list[Parts], least: float) -> list[Place]:
    """The places with their features of |value| >= least; the others' part of the activation joins
    the error, from which goes what features of earlier layers write there."""
    strong = [one.code.where(one.code.values.abs() >= least) for one in parts]
    errors = {site.write: one.error for site, one in zip(standing, parts, strict=True)}
    for site, one, code in zip(standing, parts, strong, strict=True):
        weak = one.code.where(one.code.values.abs() < least)
        errors[site.write] = errors[site.write] + _written(weak, site.sae.W_dec, one.error)
        for hook, W_FE in site.later:
            errors[hook] = errors[hook] - _written(code, W_FE, one.error)
    return [
        Place(site.write, site, one._replace(code=code, error=errors[site.write]))
        for site, one, code in zip(standing, parts, strong, strict=True)
    ]


def _written(code: Code, W_FE: Tensor, like_CTE: Tensor) -> Tensor:
    return spmm(code, W_FE.detach()).view_as(like_CTE)
