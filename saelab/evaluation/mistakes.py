"""The mistakes that a file of an SAE cannot rule out, tried on activations: what its FVU would be
if one of them had been made in reading it, or in naming its place.

Shapes: N tokens, F features, D width in, E width out.
"""

import copy
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from saelab.sae import SAE
from saelab.sparsify import Choice
from saelab.token_norm import TokenNorm

TOKENS = 1024  # that they are tried on
COARSE = tuple(2.0**power for power in range(-7, 8))  # factors that are tried first
FINE = (-0.75, -0.5, -0.25, 0.25, 0.5, 0.75)  # powers of two around the best of them

Tried = tuple[float, str]


class Seen(NamedTuple):
    """Activations of the same tokens."""

    x_ND: Tensor
    """at the place that the SAE is said to read"""
    target_NE: Tensor
    """at the place that it is said to explain"""
    others: Mapping[str, Tensor]
    """at further places, by name"""


def explanation(sae: SAE, seen: Seen) -> tuple[float, float, str]:
    """(FVU as it is, FVU if the likeliest mistake were undone, that mistake in words)."""
    first = slice(TOKENS)
    others = {name: acts[first] for name, acts in seen.others.items()}
    few = Seen(seen.x_ND[first], seen.target_NE[first], others)
    best, what = min([*_tried(sae, few)], default=(float("inf"), ""))
    return fvu(sae.reconstruct(few.x_ND)[0], few.target_NE), best, what


def fvu(x_hat_NE: Tensor, target_NE: Tensor) -> float:
    """Sum of squared errors over that of the mean."""
    centred_NE = target_NE - target_NE.mean(0)
    return float((x_hat_NE - target_NE).square().sum() / centred_NE.square().sum())


def changed(sae: SAE, **weights: Tensor) -> SAE:
    """The SAE with other weights, sharing the rest; `levels` too."""
    twin = copy.copy(sae)
    twin._parameters = dict(sae._parameters)
    twin._buffers = dict(sae._buffers)
    for name, value in weights.items():
        if name in twin._parameters:
            twin._parameters[name] = torch.nn.Parameter(value, requires_grad=False)
        else:
            twin._buffers[name] = value
    return twin


def _tried(sae: SAE, seen: Seen) -> Iterator[Tried]:
    yield from _scale(sae, seen)
    yield from _thresholds(sae, seen)
    yield from _weights(sae, seen)
    if not sae.transcoder:
        yield from _centring(sae, seen)
        yield from _tokens(sae, seen)
    yield from _places(sae, seen)


def _scale(sae: SAE, seen: Seen) -> Iterator[Tried]:
    """Inputs in other units, or outputs; of an autoencoder both together."""

    def of(scale: float) -> float:
        x_hat_NE = sae.reconstruct(seen.x_ND * scale)[0] / (1 if sae.transcoder else scale)
        return fvu(x_hat_NE, seen.target_NE)

    for error, scale in _factors(of):
        yield error, f"input scale off by {scale:.3g}"

    x_hat_NE = sae.reconstruct(seen.x_ND)[0]

    def given(scale: float) -> float:
        return fvu(sae.b_dec + (x_hat_NE - sae.b_dec) * scale, seen.target_NE)

    for error, scale in _factors(given):
        yield error, f"what it gives is off by {1 / scale:.3g}"


def _tokens(sae: SAE, seen: Seen) -> Iterator[Tried]:
    """Each token normalised by itself, or not, in another way."""
    for name in get_args(TokenNorm):
        if name != sae.token_norm:
            twin = changed(sae)
            twin.token_norm = name
            words = f"each token normalised ({name})" if name else "tokens as they are"
            yield fvu(twin.reconstruct(seen.x_ND)[0], seen.target_NE), f"made for {words}"


def _thresholds(sae: SAE, seen: Seen) -> Iterator[Tried]:
    if sae.levels is None or not bool((sae.levels > 0).any()):
        return
    levels_F = sae.levels

    def of(scale: float) -> float:
        twin = changed(sae, levels=levels_F * scale)
        return fvu(twin.reconstruct(seen.x_ND)[0], seen.target_NE)

    for error, scale in _factors(of):
        yield error, f"thresholds off by {1 / scale:.3g}"


def _factors(of: Callable[[float], float]) -> Iterator[tuple[float, float]]:
    """(FVU, factor) of coarse steps, then of fine ones around the best."""
    coarse = [(of(scale), scale) for scale in COARSE]
    best = min(coarse)[1]
    fine = [(of(best * 2.0**power), best * 2.0**power) for power in FINE]
    yield from (pair for pair in (*coarse, *fine) if pair[1] != 1)


def _weights(sae: SAE, seen: Seen) -> Iterator[Tried]:
    """Matrices read the wrong way round, and a choice by something else."""
    F, D, E = sae.n_features, sae.d_model, len(sae.b_dec)
    twins = {}
    if F == E:
        twins["decoder transposed"] = changed(sae, W_dec=sae.W_dec.T.contiguous())
    if F == D:
        twins["encoder transposed"] = changed(sae, W_enc=sae.W_enc.T.contiguous())
    norms_F = sae.W_dec.norm(dim=1)
    if isinstance(sae.sparsify, Choice) and bool(((norms_F - 1).abs() > 0.01).any()):
        n_F1 = norms_F.clamp_min(1e-12)[:, None]
        unit = {"W_enc": sae.W_enc * n_F1, "W_dec": sae.W_dec / n_F1}
        twin = changed(sae, **unit, b_enc=sae.b_enc * n_F1[:, 0])
        twins["its choice compares what features add, norms of decoder rows included"] = twin
    for what, twin in twins.items():
        yield fvu(twin.reconstruct(seen.x_ND)[0], seen.target_NE), what


def _centring(sae: SAE, seen: Seen) -> Iterator[Tried]:
    x_ND, mean_N1 = seen.x_ND, seen.x_ND.mean(1, keepdim=True)
    for sign, what in ((1, "not centred in its source"), (-1, "centred in its source")):
        yield fvu(_shifted(sae, sign).reconstruct(x_ND)[0], x_ND), what
    x_hat_ND = sae.reconstruct(x_ND - mean_N1)[0] + mean_N1
    yield fvu(x_hat_ND, x_ND), "of a model without means"


def _shifted(sae: SAE, sign: int) -> SAE:
    """The SAE with what subtracting b_dec does to its pre-activations undone, or done twice."""
    return changed(sae, b_enc=sae.b_enc + sign * (sae.W_enc @ sae.b_dec))


def _places(sae: SAE, seen: Seen) -> Iterator[Tried]:
    """Another layer or hook point; of an autoencoder, that it is a transcoder."""
    x_hat_NE = sae.reconstruct(seen.x_ND)[0]
    # What it would give if it did not centre, as no transcoder does.
    uncentred_NE = (sae if sae.transcoder else _shifted(sae, 1)).reconstruct(seen.x_ND)[0]
    for hook, other in seen.others.items():
        fits_in, fits_out = other.shape == seen.x_ND.shape, other.shape == x_hat_NE.shape
        if sae.transcoder:
            if fits_in:
                error = fvu(sae.reconstruct(other)[0], seen.target_NE)
                yield error, f"it reads another place, {hook}"
            if fits_out:
                yield fvu(x_hat_NE, other), f"it explains another place, {hook}"
        elif fits_in:
            yield fvu(sae.reconstruct(other)[0], other), f"of another layer, {hook}"
            error = min(fvu(x_hat_NE, other), fvu(uncentred_NE, other))
            yield error, f"a transcoder that explains {hook}"
