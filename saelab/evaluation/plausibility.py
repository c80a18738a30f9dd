"""Whether an SAE looks like one that was trained on the activations it is given, and if not, which
of a few mistakes would explain it.

Shapes: N tokens, F features, D width.
"""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.evaluation.mistakes import Seen, changed, explanation, fvu
from saelab.sae import SAE

TOKENS = 4096  # that are looked at
BETTER = 0.5  # of the FVU, that a mistake must explain away to be named
EXPLAINED = 0.8  # FVU that it must reach: of 1 the mean alone does as well
L0_OFF = 2.0  # by which the measured L0 may differ from the recorded one, either way


class Plausibility(NamedTuple):
    """What a trained SAE must show, measured."""

    fvu: float
    permuted: float
    """FVU with its decoder's rows permuted: what an untrained one may reach"""
    pca: float
    """FVU of as many principal components as it has pairs per token"""
    l0: float
    recorded: float | None
    """k or L0 that its files say"""
    dead: float
    """share of F that fires on none of the tokens"""
    wrong: str
    """what looks wrong and what would explain it, "" if nothing does"""


def sentence(seen: Mapping[str, Any]) -> str:
    """What was measured, and whether it looks right, for people. seen: fields of a
    `Plausibility`."""
    fvu_, pca = ("-" if seen[name] is None else f"{seen[name]:.4f}" for name in ("fvu", "pca"))
    numbers = f"FVU {fvu_} (PCA {pca}), L0 {seen['l0']:.1f}"
    said = f"this looks wrong: {seen['wrong']}" if seen["wrong"] else "looks right"
    return f"{numbers}, {seen['dead']:.1%} of F silent on these tokens: {said}"


def on_cache(sae: SAE, cache: Cache) -> Plausibility:
    """Measure an SAE on held-out tokens of a cache, whose other hooks are tried as its place too.

    Raises UsageError for a cache without its hooks, or of another width.
    """
    hook = cache.resolve(sae.origin.hook or cache.hooks[0])
    target = cache.resolve(sae.origin.target) if sae.transcoder else hook
    size = min(TOKENS, cache.n_tokens("held_out"))
    with cache.batches(cache.hooks, size, split="held_out") as batches:
        acts = {name: each.to(sae.W_enc.device) for name, each in next(batches).items()}
    others = {name: acts[name] for name in cache.hooks if name not in (hook, target)}
    return plausibility(sae, acts[hook], acts[target], others)


@torch.no_grad()
def plausibility(
    sae: SAE, x_ND: Tensor, target_NE: Tensor | None = None, others: Mapping[str, Tensor] = {}
) -> Plausibility:
    """Measure an SAE on activations of the hook that it is said to read.

    target: what a transcoder explains. others: activations [N, D] of the same tokens at other
    hooks, tried where it looks wrong. Raises UsageError for another width.

    >>> plausibility(sae, next(cache.batches(hook, 4096, split="held_out"))).wrong
    ''
    """
    if x_ND.shape[1] != sae.d_model:
        raise UsageError(
            f"the activations are {x_ND.shape[1]:,} wide, the SAE reads {sae.d_model:,}: they are "
            "of another model or hook"
        )
    target_NE = x_ND if target_NE is None else target_NE
    x_hat_NE, code = sae.reconstruct(x_ND)
    fired = code.values != 0
    l0 = float(fired.sum()) / len(x_ND)
    seen = torch.bincount(code.features[fired], minlength=sae.n_features)
    pca = _pca(target_NE, min(round(l0), target_NE.shape[1]))
    measured = Plausibility(
        fvu=fvu(x_hat_NE, target_NE),
        permuted=fvu(_permuted(sae).reconstruct(x_ND)[0], target_NE),
        pca=pca,
        l0=l0,
        recorded=_recorded(sae),
        dead=float((seen == 0).float().mean()),
        wrong="",
    )
    explained = _explained(sae, Seen(x_ND, target_NE, others))
    said = [*_complaints(measured), *explained]
    return measured._replace(wrong="; ".join(said))


def _recorded(sae: SAE) -> float | None:
    measured = sae.origin.more.get("l0")
    return measured if isinstance(measured, int | float) else sae.origin.k


def _complaints(seen: Plausibility) -> Iterator[str]:
    if not seen.fvu < seen.permuted:
        yield f"FVU {seen.fvu:.3g} is no better than {seen.permuted:.3g} of its decoder permuted"
    elif not seen.fvu < seen.pca:
        yield f"FVU {seen.fvu:.3g} is no better than {seen.pca:.3g} of PCA at its L0"
    if seen.recorded and not 1 / L0_OFF <= seen.l0 / seen.recorded <= L0_OFF:
        yield f"L0 is {seen.l0:.3g}, recorded {seen.recorded:g}"


def _explained(sae: SAE, seen: Seen) -> Iterator[str]:
    """The mistake that explains most, in words: of an SAE that is right, none explains much."""
    error, best, what = explanation(sae, seen)
    if best < min(BETTER * error, EXPLAINED):
        yield f"{what}: FVU would be {best:.3g} instead of {error:.3g}"


def _pca(x_ND: Tensor, n: int) -> float:
    """FVU of the first n principal components of these tokens."""
    centred_ND = (x_ND - x_ND.mean(0)).double()
    values_D = torch.linalg.eigvalsh(centred_ND.T @ centred_ND).flip(0).clamp_min(0)
    return float(values_D[n:].sum() / values_D.sum())


def _permuted(sae: SAE) -> SAE:
    order_F = torch.randperm(sae.n_features, generator=torch.Generator().manual_seed(0))
    return changed(sae, W_dec=sae.W_dec[order_F.to(sae.W_dec.device)])
