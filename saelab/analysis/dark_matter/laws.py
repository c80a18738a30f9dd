"""How the errors of SAEs of several sizes hang together: in sum by a power law with a floor, token
by token by their norms.

After Engels, Smith and Tegmark (arXiv 2410.14670). Shapes: S sizes, R resamples, N tokens, E
exponents tried.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.dark_matter import linear
from saelab.errors import UsageError
from saelab.statistics import Estimate
from saelab.statistics.sums import of_tokens

EXPONENTS = np.geomspace(0.02, 4, 400)


class Law(NamedTuple):
    """fvu = floor + scale (size / smallest size)^-exponent; each [...]."""

    floor: np.ndarray
    """at least 0"""
    scale: np.ndarray
    """at least 0"""
    exponent: np.ndarray
    """of the size"""
    missed: np.ndarray
    """sum of squared misses"""


class Told(NamedTuple):
    """One SAE's error norms told from another's."""

    r2: Estimate
    """R^2 from the other's norms; null: of norms that say nothing"""
    added: Estimate
    """share of what this leaves that the norms of the other's nonlinear part explain"""


def power_law(sizes: np.ndarray, fvu: np.ndarray) -> Law:
    """The least-squares law through fvu [..., S] at sizes [S] (widths or k): exact in floor and
    scale, exponent from EXPONENTS.

    Leading dimensions, such as resamples, are fitted each by itself. Raises UsageError for fewer
    than four different sizes: three numbers are fitted.
    """
    if len(set(np.asarray(sizes).tolist())) < 4:
        raise UsageError(
            "a power law with a floor needs four different sizes, there are "
            f"{len(set(np.asarray(sizes).tolist()))}"
        )
    decay_ES = (np.asarray(sizes, dtype=float) / np.min(sizes)) ** -EXPONENTS[:, None]
    fvu_S = np.asarray(fvu, dtype=float)[..., None, :]
    middle_E, mean = decay_ES.mean(-1), fvu_S.mean(-1)
    slope = ((decay_ES - middle_E[:, None]) * fvu_S).sum(-1) / np.square(
        decay_ES - middle_E[:, None]
    ).sum(-1)
    through_zero = (decay_ES * fvu_S).sum(-1) / np.square(decay_ES).sum(-1)
    floor = mean - slope * middle_E
    scale = np.where(floor < 0, through_zero, slope)
    floor, scale = np.where(scale < 0, mean, floor.clip(0)), scale.clip(0)
    missed = np.square(fvu_S - floor[..., None] - scale[..., None] * decay_ES).sum(-1)
    best = missed.argmin(-1)[..., None]
    floor, scale, missed = (
        np.take_along_axis(part, best, -1)[..., 0] for part in (floor, scale, missed)
    )
    return Law(floor, scale, EXPONENTS[best[..., 0]], missed)


def bands(law: Law, fvu_nonlinear: np.ndarray) -> dict[str, np.ndarray]:
    """What the fitted curve consists of below the fitted curve, each [...]; above the floor lies
    what wider SAEs still learn.

    nonlinear: mean over the sizes of the nonlinear FVU [..., S]; linear: the floor less that, the
    linear error that stays.
    """
    nonlinear = np.asarray(fvu_nonlinear).mean(-1)
    return {"floor": law.floor, "nonlinear": nonlinear, "linear": law.floor - nonlinear}


def norms_told(
    norm: Tensor, nonlinear: Tensor, other: Tensor, owners: Tensor, seed: int = 0
) -> Told:
    """How well one SAE's per-token error norms [N] tell another's (`other` [N]), and what its
    nonlinear part's norms add.

    owners [N]: documents; each half of them is scored with a fit on the other half. Raises
    UsageError for a single document.
    """
    documents, rank_N = owners.unique(return_inverse=True)
    if len(documents) < 2:
        raise UsageError(
            "error norms are told on other documents than they were fitted on: at least two are "
            "needed"
        )
    half_N, target_N1 = rank_N % 2 == 0, other[:, None]
    columns = {"n": torch.ones_like(other), "norm": other, "square": other.square()}
    for name, regressors in (("missed", [norm]), ("missed_less", [norm, nonlinear])):
        x_NP = torch.stack(regressors, 1)
        fits = [linear.fit(x_NP[half], target_N1[half]) for half in (half_N, ~half_N)]
        told_N1 = torch.where(half_N[:, None], fits[1](x_NP), fits[0](x_NP))
        columns[name] = (told_N1 - target_N1).square().squeeze(1)
    null = -1 / (int(half_N.sum()) - 2)
    r2 = of_tokens(owners, columns, _told_r2, seed, null)
    added = of_tokens(owners, columns, lambda s: 1 - s["missed_less"] / s["missed"], seed, 0.0)
    return Told(r2, added)


def _told_r2(sums: dict[str, np.ndarray]) -> np.ndarray:
    return 1 - sums["missed"] / (sums["square"] - np.square(sums["norm"]) / sums["n"])
