"""Does an attention SAE's feature lose, when a residual feature is taken out of the running model,
what frozen attribution says that it brings?

Attribution holds attention patterns, norms and MLPs (`attribution.by_residual_feature`); ablation
lets them answer. Source: Kissane et al. 2024 (recursive direct feature attribution), who leave the
question open. Shapes: C contexts, T positions, D width, N parts, M parts of one firing.
"""

from typing import Any

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.analysis import frozen
from saelab.analysis.attention import attribution
from saelab.sae import SAE
from saelab.statistics.draws import stream

PARTS = 5  # the strongest of each firing
PER_CONTEXT = 10  # firings of one context at most


@torch.no_grad()
def tested(
    model: Any, cache: Cache, sae: SAE, residual: SAE, n_firings: int, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """(what residual features bring to pre-activations of `sae`, what these lose without them): [N]
    each, the PARTS strongest of n_firings drawn from held-out contexts.

    Raises UsageError for a hook that the cache does not hold.

    >>> brought_N, lost_N = tested(model, cache, sae, residual, 200)
    >>> torch.corrcoef(torch.stack([brought_N, lost_N]))[0, 1]
    """
    hook, draw = cache.resolve(sae.origin.hook), stream("traced firings", seed)
    found: list[tuple[Tensor, Tensor]] = []
    for chunk in cache.contexts(hook, "held_out"):
        for x_TD, tokens_T, counted_T in zip(chunk.acts, chunk.tokens, chunk.counted, strict=True):
            code = sae.encode(x_TD.flatten(1).to(sae.W_enc))
            fired = ((code.values != 0) & counted_T.to(code.values.device)[code.tokens]).nonzero()
            some = fired.flatten()[torch.randperm(len(fired), generator=draw)[:PER_CONTEXT]]
            held = frozen.freeze(model, tokens_T[None].to(model.cfg.device))
            firings = zip(code.features[some].tolist(), code.tokens[some].tolist(), strict=True)
            for feature, position in firings:
                brought = attribution.by_residual_feature(
                    model, held, sae, residual, feature, position
                ).first(PARTS)
                free = held._replace(held={})
                lost_M = lost(model, free, sae, residual, brought, feature, position)
                found.append((brought.values, lost_M))
                if len(found) == n_firings:
                    return _joined(found)
    return _joined(found)


def _joined(found: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    brought, lost = zip(*found, strict=True)
    return torch.cat(brought).cpu(), torch.cat(lost).cpu()


@torch.no_grad()
def lost(
    model: Any,
    run: frozen.Frozen,
    sae: SAE,
    residual: SAE,
    parts: attribution.ByFeature,
    feature: int,
    position: int,
) -> Tensor:
    """[M]: what a pre-activation of one context loses without each of its parts, in a run that
    holds what `run` holds: all that attribution holds, and it is what they bring."""
    read, source = sae.origin.hook, residual.origin.hook
    acts = frozen.run(model, run, {}, [source, read])
    x_TD = acts[source][0]
    code = residual.encode(x_TD)
    edited_MTD = x_TD.repeat(len(parts.values), 1, 1)
    for row, (place, number) in enumerate(zip(parts.positions, parts.features, strict=True)):
        here = (code.tokens == place) & (code.features == number)
        edited_MTD[row, place] -= code.values[here].sum() * residual.W_dec[number]
    after_MD = frozen.run(model, run, {source: edited_MTD}, [read])[read][:, position]
    return (acts[read][0, position] - after_MD) @ sae.W_enc[feature]
