"""Interchange of an attribute between two prompts: do some latents hold it, and nothing else?

In the manner of RAVEL (Huang et al. 2024, arXiv 2402.17700) as SAEBench scores it: at the
attribute's position latents become (1 - m) base + m source, where the mask m is learned on pairs
and then 0 or 1. Shapes: P pairs, T positions, D width, L latents that fire on some pair.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from saelab.evaluation.stated import Stated, drawn
from saelab.models import running
from saelab.sae import SAE
from saelab.statistics import Estimate, weights

EPOCHS, BATCH, RATE = 20, 64, 0.05
HOT, COLD = 1.0, 1e-2  # temperatures of the mask, first and last, evenly in their logarithm


class Pairs(NamedTuple):
    """Prompts whose attribute is swapped in."""

    base: Tensor
    """[P, T] tokens of the prompt that is run"""
    source: Tensor
    """[P, T] tokens of the one that the attribute is taken from"""
    answers: Tensor
    """[P] what is right: the source's value where the attribute is asked for, else the base's"""
    cause: Tensor
    """[P] bool: whether it is asked for"""
    positions: Tensor
    """[P] where the attribute is"""

    def part(self, rows: Any) -> "Pairs":
        """Some of the pairs."""
        return Pairs(*(tensor[rows] for tensor in self))


class Basis(NamedTuple):
    """What the mask is over: numbers of an activation, and back."""

    code: Callable[[Tensor], Tensor]
    """x [P, D] to [P, L]"""
    decode: Callable[[Tensor], Tensor]
    """[P, L] to x_hat [P, D]"""
    n: int
    """L"""
    learned: tuple[Tensor, ...] = ()
    """what is learned with the mask"""


class Interchange(NamedTuple):
    """How one attribute is moved, on held-out pairs."""

    mask: Tensor
    """[L] bool"""
    right: np.ndarray
    """[P] bool: the prediction is the right one"""
    cause: np.ndarray
    """[P] bool: as of `Pairs`"""

    def score(self, cause: bool) -> float:
        """Share right of pairs that ask for the attribute, or of the others."""
        return float(self.right[self.cause == cause].mean())


def of_sae(sae: SAE, x_XD: Tensor) -> Basis:
    """The latents that fire on some of these activations."""
    with torch.no_grad():
        code = sae.encode(x_XD.to(sae.W_enc))
    live_L = code.features[code.values != 0].unique()

    def encode(x_PD: Tensor) -> Tensor:
        return sae.encode(x_PD).to_dense()[:, live_L].detach()

    W_LD, b_D = sae.W_dec.detach()[live_L], sae.b_dec.detach()
    return Basis(encode, lambda z_PL: z_PL @ W_LD + b_D, len(live_L))


def neurons(width: int) -> Basis:
    """The activation's own coordinates."""
    return Basis(lambda x: x, lambda x: x, width)


def rotation(width: int, seed: int = 0) -> Basis:
    """Coordinates along directions that are learned with the mask, at right angles: what any basis
    can do at most."""
    draw = torch.Generator().manual_seed(seed)
    start = torch.randn(width, width, generator=draw) / width**0.5
    skew_DD = start.requires_grad_()

    def turned() -> Tensor:
        return torch.linalg.matrix_exp(skew_DD - skew_DD.T)

    return Basis(lambda x: x @ turned().to(x), lambda z: z @ turned().T.to(z), width, (skew_DD,))


def learned(
    model: Any, hook: str, basis: Basis, pairs: Pairs, *, kept: bool = True, seed: int = 0
) -> Tensor:
    """[L] bool: the mask that brings the right answers about, by Adam on their cross-entropy while
    the temperature falls. kept: whether the base's error stays."""
    mask_L = torch.zeros(basis.n, requires_grad=True)
    n_batches = -(-len(pairs.base) // BATCH)
    optimiser = torch.optim.Adam([mask_L, *basis.learned], lr=RATE)
    temperatures = np.geomspace(HOT, COLD, EPOCHS * n_batches)
    draw, step = torch.Generator().manual_seed(seed), 0
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(pairs.base), generator=draw).split(BATCH):
            soft_L = torch.sigmoid(mask_L / temperatures[step])
            part = pairs.part(rows)
            logits_PV = swapped(model, hook, basis, part, soft_L, kept=kept)
            loss = cross_entropy(logits_PV, part.answers.to(logits_PV.device))
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
    return mask_L.detach() > 0


def swapped(
    model: Any, hook: str, basis: Basis, pairs: Pairs, mask_L: Tensor, *, kept: bool
) -> Tensor:
    """[P, V]: logits at the last position of the base prompts with the masked numbers taken from
    the sources. kept: whether what the basis misses of the base stays in place; else it is lost."""
    rows = torch.arange(len(pairs.base))
    base_PD, source_PD = (
        running.read(model, tokens, [hook])[hook].flatten(2)[rows, pairs.positions].float()
        for tokens in (pairs.base, pairs.source)
    )
    z_base_PL, z_source_PL = basis.code(base_PD), basis.code(source_PD)
    mask_L = mask_L.to(z_base_PL)
    new_PD = basis.decode((1 - mask_L) * z_base_PL + mask_L * z_source_PL)
    if kept:
        new_PD = new_PD + base_PD - basis.decode(z_base_PL)

    def put(acts: Tensor) -> Tensor:
        changed = acts.flatten(2).clone()
        changed[rows, pairs.positions] = new_PD.to(changed)
        return changed.view_as(acts)

    return running.logits(model, pairs.base, {hook: put}, last=True)


@torch.no_grad()
def scored(
    model: Any, hook: str, basis: Basis, pairs: Pairs, mask_L: Tensor, *, kept: bool = True
) -> Interchange:
    """The predictions on pairs with a binary mask.

    >>> one = scored(model, hook, of_sae(sae, x), held_out, torch.ones(n, dtype=torch.bool))
    >>> one.score(cause=True), one.score(cause=False)
    """
    logits_PV = swapped(model, hook, basis, pairs, mask_L.float(), kept=kept)
    right_P = logits_PV.argmax(1).cpu() == pairs.answers
    return Interchange(mask_L, right_P.numpy(), pairs.cause.numpy())


def stated(found: Interchange, label: str, seed: int = 0) -> list[Stated]:
    """`cause`, `isolation` and their mean, `disentanglement`, with intervals over pairs. Null of
    the mean: 0.5, what all numbers moved and what none moved get."""
    sides = {"cause": found.cause, "isolation": ~found.cause}
    sums_P4 = np.stack([part for on in sides.values() for part in (found.right & on, on)], 1)
    weights_RP = weights(len(sums_P4), seed)

    def share(sums: np.ndarray, side: int) -> np.ndarray:
        return sums[..., 2 * side] / np.maximum(sums[..., 2 * side + 1], 1)

    statistics = {
        "cause": (lambda sums: share(sums, 0), 0.0),
        "isolation": (lambda sums: share(sums, 1), 0.0),
        "disentanglement": (lambda sums: (share(sums, 0) + share(sums, 1)) / 2, 0.5),
    }
    made = []
    for name, (statistic, null) in statistics.items():
        estimate, draws_R = drawn(sums_P4.astype(float), statistic, weights_RP)
        estimate = Estimate(*estimate[:3], null)
        made.append(Stated("interchange", name, "higher", estimate, draws_R, label))
    return made
