"""An SAE as a file of others says it, and ours of the same function.

All of a form's conventions become numbers of one value, `Published`, and one function applies what
follows from them, in float64 and rounded once. Shapes: F features, D width in, E width out.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor

from saelab.errors import FailedRun, UsageError
from saelab.formats.matrices import Matrix
from saelab.origin import Origin
from saelab.sae import SAE, TokenNorm
from saelab.sparsify import Choice, Sparsify, Threshold

UNIT = 1e-6  # of a row's norm: as near to 1 as float32 keeps it

Units = Literal["pre", "decoded", "raw"]


@dataclass(frozen=True)
class Published:
    """pre = gain (x scale[0] - b_dec) W_enc^T + b_enc; z from `sparsify`;
    y = (z out_gain W_dec + b_dec + skip(x scale[0])) / scale[1].

    >>> published = Published(W_enc, b_enc, W_dec, b_dec, Choice(32), origin=Origin(hook=hook))
    >>> sae = made(published)
    """

    W_enc: Matrix
    """[F, D]"""
    b_enc: Tensor
    """[F]"""
    W_dec: Matrix
    """[F, E]"""
    b_dec: Tensor
    """[E]"""
    sparsify: Sparsify
    levels: Tensor | None = None
    """[F], or one for all: what a pre-activation must exceed"""
    level_units: Units = "pre"
    """of what the levels are: pre-activations, those times their decoder row's norm, or values of
    the finished SAE on raw activations with unit rows"""
    by_decoded: bool = False
    """whether a choice compares pre-activations times their decoder row's norm"""
    transcoder: bool = False
    centred: bool = True
    """whether b_dec is subtracted from the input (of a transcoder it never is)"""
    W_skip: Tensor | None = None
    """[E, D]"""
    gain: Tensor | None = None
    """[F]"""
    out_gain: Tensor | None = None
    """[F]"""
    scale: tuple[float, float] = (1.0, 1.0)
    """what inputs were multiplied by in training, and outputs divided by"""
    token_norm: TokenNorm = ""
    """how each token is normalised before all else"""
    mean_free: bool = False
    """whether the source's model had each activation's mean over D taken off"""
    sizes: Mapping[str, Any] = field(default_factory=dict)
    """`features`, `inputs`, `outputs` as its configuration counts them; None: it does not"""
    origin: Origin = field(default_factory=Origin)


@torch.no_grad()
def made(source: Published) -> SAE:
    """Our SAE of the same function: unit decoder rows wherever the choice does not depend on them,
    the input centred, on raw activations.

    Raises FailedRun for shapes that do not fit each other and for weights that are not finite.
    """
    check(source)
    (n_features, d_model), d_out = source.W_enc.shape, source.W_dec.shape[1]
    scale_in, scale_out = source.scale
    stored_F = _norms(source.W_dec)
    if source.out_gain is not None:
        stored_F = stored_F * source.out_gain.double().abs()
    n_F = _unit(stored_F / scale_out) if _rows_are_free(source) else torch.ones_like(stored_F)

    W_dec = torch.empty(n_features, d_out)
    out_F = 1 / (n_F * scale_out) * _or_one(source.out_gain)
    for (features, columns), piece in source.W_dec.pieces():
        W_dec[features, columns] = piece.mul_(_rows(out_F, features))
    b_dec = source.b_dec.double() / scale_out

    factor_F = n_F * scale_in * _or_one(source.gain)
    W_enc, mean_F = torch.empty(n_features, d_model), torch.zeros(n_features, dtype=torch.float64)
    if source.mean_free:
        mean_F = _means(source.W_enc) * factor_F
    shift_F = torch.zeros(n_features, dtype=torch.float64)  # what our centring takes off
    shifted = not source.transcoder and (source.mean_free or not source.centred)
    for (features, columns), piece in source.W_enc.pieces():
        scaled = piece.mul_(_rows(factor_F, features))
        if shifted and source.centred:  # what the source's own centring takes off stays off
            shift_F[features] -= scaled @ b_dec[columns]
        if source.mean_free:
            scaled.sub_(_rows(mean_F, features))
        if shifted:
            shift_F[features] += scaled @ b_dec[columns]
        W_enc[features, columns] = scaled
    b_enc = source.b_enc.double() * n_F + shift_F

    skip = None if source.W_skip is None else source.W_skip.double() * scale_in / scale_out
    if source.mean_free and not source.transcoder:  # the mean that the source never saw stays
        skip = torch.full((d_out, d_model), 1 / d_model, dtype=torch.float64)
    weights = {"W_enc": W_enc, "b_enc": b_enc.float(), "W_dec": W_dec, "b_dec": b_dec.float()}
    if skip is not None:
        weights["W_skip"] = skip.float().contiguous()
    if source.levels is not None:
        weights["levels"] = _levels(source, n_F)
    sae = SAE.of(
        weights, source.sparsify, transcoder=source.transcoder, token_norm=source.token_norm
    )
    more = {**source.origin.more, "applied": applied(source, stored_F, n_F)}
    sae.origin = replace(source.origin, more=more)
    return sae


def applied(
    source: Published, stored_F: Tensor | None = None, n_F: Tensor | None = None
) -> list[str]:
    """What is done to the weights in reading, in words. [F]: norms of the stored rows, and what
    they are divided by; None where no weight has been read."""
    free = _rows_are_free(source)
    unit, kept = "decoder rows scaled to unit norm", "decoder rows keep their norms"
    scaled = free if n_F is None else bool((n_F != 1).any())
    other = not free and (stored_F is None or bool(((stored_F - 1).abs() > UNIT).any()))
    by_skip = source.mean_free and not source.transcoder
    unread = "" if n_F is not None else ", where they have another"
    done = {
        "b_dec folded into b_enc": not (source.centred or source.transcoder),
        f"{unit}{unread}": scaled,
        f"{kept}, which its top-k does not look at": other,
        "its gate is a threshold": source.gain is not None,
        f"inputs scaled by {source.scale[0]:.6g}, folded": source.scale != (1.0, 1.0),
        f"each token normalised: {source.token_norm}": bool(source.token_norm),
        "the mean over its width, which its model left out, is added by a skip": by_skip,
    }
    return [what for what, is_so in done.items() if is_so]


def gated(W_enc: Matrix, r_mag: Tensor, b_mag: Tensor, b_gate: Tensor) -> dict[str, Any]:
    """A gated encoder as a threshold: relu(e^r u + b_mag) where u + b_gate > 0 is e^r u + b_mag
    where that exceeds b_mag - e^r b_gate and 0."""
    gain = r_mag.double().exp()
    levels = (b_mag.double() - gain * b_gate.double()).clamp_min(0)
    return {"W_enc": W_enc, "b_enc": b_mag, "gain": gain, "levels": levels, "sparsify": Threshold()}


def _levels(source: Published, n_F: Tensor) -> Tensor:
    """[F] levels of values of the finished SAE; a negative one lets no negative value through."""
    assert source.levels is not None
    factor = {"pre": n_F, "decoded": 1 / source.scale[1], "raw": 1.0}[source.level_units]
    levels_F = source.levels.double().expand(len(n_F)) * factor
    return levels_F.clamp_min(0).float()


def _rows_are_free(source: Published) -> bool:
    """Whether decoder rows may be scaled without changing which features win."""
    return isinstance(source.sparsify, Threshold) or source.by_decoded


def _unit(norm_F: Tensor) -> Tensor:
    """Norms that rows are divided by; rows of zeros, and unit ones up to rounding, are left."""
    is_unit_F = (norm_F - 1).abs() <= UNIT
    return torch.where(is_unit_F | (norm_F == 0), torch.ones_like(norm_F), norm_F)


def _norms(matrix: Matrix) -> Tensor:
    total_F = torch.zeros(matrix.shape[0], dtype=torch.float64)
    for (features, _), piece in matrix.pieces():
        total_F[features] += piece.square_().sum(1)
    return total_F.sqrt()


def _means(matrix: Matrix) -> Tensor:
    total_F = torch.zeros(matrix.shape[0], dtype=torch.float64)
    for (features, _), piece in matrix.pieces():
        total_F[features] += piece.sum(1)
    return total_F / matrix.shape[1]


def _rows(of_F: Tensor, features: slice) -> Tensor:
    return of_F[features][:, None]


def _or_one(of_F: Tensor | None) -> Tensor | float:
    return 1.0 if of_F is None else of_F.double()


def check(source: Published) -> None:
    """Raise FailedRun for shapes that do not fit each other, UsageError for what has no form
    here."""
    (n_features, d_model), (n_decoded, d_out) = source.W_enc.shape, source.W_dec.shape
    lengths = {
        "W_dec": (n_decoded, n_features),
        "b_enc": (len(source.b_enc), n_features),
        "b_dec": (len(source.b_dec), d_out),
    }
    if source.levels is not None and source.levels.ndim:
        lengths["threshold"] = (len(source.levels), n_features)
    for name, (length, due) in lengths.items():
        if length != due:
            raise FailedRun(
                f"{name} is of {length:,} {'outputs' if name == 'b_dec' else 'features'}, "
                f"W_enc [{n_features:,}, {d_model:,}] and W_dec [{n_decoded:,}, {d_out:,}] need "
                f"{due:,}"
            )
    held = {"features": n_features, "inputs": d_model, "outputs": d_out}
    for name, said in source.sizes.items():
        if said and int(said) != held[name]:
            raise FailedRun(
                f"its configuration says {int(said):,} {name}, its tensors have {held[name]:,}: "
                "they are of two SAEs"
            )
    if d_out != d_model and not source.transcoder:
        raise FailedRun(f"it reads {d_model:,} numbers and writes {d_out:,}: a transcoder")
    if not source.transcoder and source.scale[0] != source.scale[1]:
        raise UsageError(f"an autoencoder with two scales, {source.scale}, has no form here")
    if isinstance(source.sparsify, Choice) and source.sparsify.k > n_features:
        raise FailedRun(f"k={source.sparsify.k} is more than its {n_features:,} features")
