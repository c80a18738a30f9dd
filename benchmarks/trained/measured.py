"""What an SAE is worth, by plain dense products that share no code with any package.

Shapes: N tokens, B of a piece, F features, D width.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

ROWS = 2048  # tokens coded at a time
LEAST = 1e-6  # of a level that divides


class Measured(NamedTuple):
    """All but the last two at exactly k pairs per token."""

    fvu: float
    """sum ||x - x_hat||^2 / sum ||x - mean||^2 of the held-out tokens"""
    dead: float
    """share of features that fire on none of the training tokens given"""
    own_fvu: float
    """as the package's own inference form has it"""
    own_l0: float
    """its firing features per token"""


class Form(NamedTuple):
    """What fires: the k highest of each token, or whatever exceeds its level."""

    k: int
    levels: Tensor | None = None
    """[F]; None of the k highest"""

    def of(self, pre_BF: Tensor) -> Tensor:
        """[B, F]: values of pre-activations."""
        values_BF = pre_BF.relu()
        if self.levels is not None:
            return torch.where(pre_BF > self.levels, values_BF, 0)
        best = values_BF.topk(self.k)
        return torch.zeros_like(pre_BF).scatter(1, best.indices, best.values)


def _pre(tensors: dict[str, Tensor], x_ND: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Pieces of x [B, D] with their pre-activations [B, F]."""
    for x_BD in x_ND.split(ROWS):
        yield x_BD, (x_BD - tensors["b_dec"]) @ tensors["W_enc"].T + tensors["b_enc"]


def equal(tensors: dict[str, Tensor], x_ND: Tensor, k: int, variant: str) -> Form:
    """The form of exactly k pairs per token on these tokens: all levels of a jumprelu times one
    number, one level for all features of a batch budget."""
    if variant == "topk":
        return Form(k)
    base_F = torch.ones_like(tensors["levels"])
    if variant == "jumprelu":
        base_F = tensors["levels"].clamp_min(LEAST * float(tensors["levels"].max()))
    scores = [(pre_BF / base_F).relu() for _, pre_BF in _pre(tensors, x_ND)]
    flat_N = torch.cat([piece.flatten() for piece in scores])
    return Form(k, base_F * float(flat_N.topk(k * len(x_ND) + 1).values[-1]))


def measure(
    tensors: dict[str, Tensor], held_out_ND: Tensor, train_ND: Tensor, form: Form, variant: str
) -> Measured:
    """The numbers of an SAE at a form."""
    own = form if variant == "topk" else Form(form.k, tensors["levels"])
    fired_F = torch.zeros(len(tensors["b_enc"]), dtype=torch.bool)
    for _, pre_BF in _pre(tensors, train_ND):
        fired_F |= (form.of(pre_BF) > 0).any(0)
    fvu, _ = _fvu(tensors, held_out_ND, form)
    own_fvu, own_l0 = _fvu(tensors, held_out_ND, own)
    return Measured(fvu, float((~fired_F).double().mean()), own_fvu, own_l0)


def _fvu(tensors: dict[str, Tensor], x_ND: Tensor, form: Form) -> tuple[float, float]:
    """(FVU, L0) of a form."""
    error, pairs = 0.0, 0
    for x_BD, pre_BF in _pre(tensors, x_ND):
        values_BF = form.of(pre_BF)
        x_hat_BD = values_BF @ tensors["W_dec"] + tensors["b_dec"]
        error += float((x_BD.double() - x_hat_BD).square().sum())
        pairs += int((values_BF > 0).sum())
    spread = float((x_ND.double() - x_ND.double().mean(0)).square().sum())
    return error / spread, pairs / len(x_ND)
