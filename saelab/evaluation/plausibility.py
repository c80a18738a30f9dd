"""Whether an SAE looks like one that was trained on the activations it is given, and if not, which
of a few mistakes would explain it.

Shapes: N tokens, F features, D width.
"""

import copy
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.sae import SAE

TOKENS = 4096  # that are looked at
SCALES = tuple(2.0 ** (power / 4) for power in range(-28, 29))  # of the inputs, that are tried
BETTER = 0.5  # of the FVU, that a mistake must explain away to be named
L0_OFF = 2.0  # by which the measured L0 may differ from the recorded one, either way


class Plausibility(NamedTuple):
    """What a trained SAE must show, measured."""

    fvu: float
    permuted: float
    """FVU with its decoder's rows permuted: what an untrained one may reach"""
    pca: float
    """FVU of as many principal components as it has pairs per token"""
    l0: float
    recorded: int | None
    """k or L0 that its files say"""
    dead: float
    """share of F that fires on none of the tokens"""
    wrong: str
    """what looks wrong and what would explain it, "" if nothing does"""


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
    fvu = _fvu(x_hat_NE, target_NE)
    l0 = float(fired.sum()) / len(x_ND)
    seen = torch.bincount(code.features[fired], minlength=sae.n_features)
    pca = _pca(target_NE, min(round(l0), target_NE.shape[1]))
    measured = Plausibility(
        fvu=fvu,
        permuted=_fvu(_permuted(sae).reconstruct(x_ND)[0], target_NE),
        pca=pca,
        l0=l0,
        recorded=sae.origin.k,
        dead=float((seen == 0).float().mean()),
        wrong="",
    )
    said = [*_complaints(measured), *_explained(sae, fvu, x_ND, target_NE, others)]
    return measured._replace(wrong="; ".join(said))


def _complaints(seen: Plausibility) -> Iterator[str]:
    if not seen.fvu < seen.permuted:
        yield f"FVU {seen.fvu:.3g} is no better than {seen.permuted:.3g} of its decoder permuted"
    elif not seen.fvu < seen.pca:
        yield f"FVU {seen.fvu:.3g} is no better than {seen.pca:.3g} of PCA at its L0"
    if seen.recorded and not 1 / L0_OFF <= seen.l0 / seen.recorded <= L0_OFF:
        yield f"L0 is {seen.l0:.3g}, recorded {seen.recorded}"


def _explained(
    sae: SAE, fvu: float, x_ND: Tensor, target_NE: Tensor, others: Mapping[str, Tensor]
) -> Iterator[str]:
    """The mistake that explains most, in words: of an SAE that is right, none explains much."""
    best, what = min(_mistakes(sae, x_ND, target_NE, others))
    if best < BETTER * fvu:
        yield f"{what}: FVU would be {best:.3g} instead of {fvu:.3g}"


def _mistakes(
    sae: SAE, x_ND: Tensor, target_NE: Tensor, others: Mapping[str, Tensor]
) -> Iterator[tuple[float, str]]:
    """(FVU if that were the mistake, the mistake in words)."""
    autoencodes = not sae.transcoder
    for scale in SCALES:
        if scale != 1:
            x_hat = sae.reconstruct(x_ND * scale)[0] / (scale if autoencodes else 1)
            yield _fvu(x_hat, target_NE), f"input scale off by {scale:.3g}"
    if not autoencodes:
        return
    for sign, what in ((1, "not centred in its source"), (-1, "centred in its source")):
        yield _fvu(_shifted(sae, sign).reconstruct(x_ND)[0], x_ND), what
    mean_ND = x_ND.mean(1, keepdim=True)
    yield _fvu(sae.reconstruct(x_ND - mean_ND)[0] + mean_ND, x_ND), "of a model without means"
    for hook, other_ND in others.items():
        if other_ND.shape == x_ND.shape:
            yield _fvu(sae.reconstruct(other_ND)[0], other_ND), f"of another layer, {hook}"


def _fvu(x_hat_NE: Tensor, target_NE: Tensor) -> float:
    """Sum of squared errors over that of the mean."""
    centred_NE = target_NE - target_NE.mean(0)
    return float((x_hat_NE - target_NE).square().sum() / centred_NE.square().sum())


def _pca(x_ND: Tensor, n: int) -> float:
    """FVU of the first n principal components of these tokens."""
    values_D = torch.linalg.svdvals((x_ND - x_ND.mean(0)).double()).square()
    return float(values_D[n:].sum() / values_D.sum())


def _permuted(sae: SAE) -> SAE:
    order_F = torch.randperm(sae.n_features, generator=torch.Generator().manual_seed(0))
    return _with(sae, W_dec=sae.W_dec[order_F.to(sae.W_dec.device)])


def _shifted(sae: SAE, sign: int) -> SAE:
    """The SAE with what subtracting b_dec does to its pre-activations undone, or done twice."""
    return _with(sae, b_enc=sae.b_enc + sign * (sae.W_enc @ sae.b_dec))


def _with(sae: SAE, **weights: Tensor) -> SAE:
    twin = copy.copy(sae)
    twin._parameters = dict(sae._parameters)
    for name, value in weights.items():
        twin._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
    return twin
