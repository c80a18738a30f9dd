"""How the error of SAEs changes with their size: a power law with a floor, and one SAE's error told from another's.

Dark-matter paper (arXiv 2410.14670), section 4. Shapes: S sizes, R resamples, N tokens, E exponents tried.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis import linear
from saelab.errors import UsageError

EXPONENTS = np.geomspace(0.02, 4, 400)


class Law(NamedTuple):
    """fvu = floor + scale (size / smallest size)^-exponent with floor, scale >= 0; each [...]. missed: sum of squared misses."""

    floor: np.ndarray
    scale: np.ndarray
    exponent: np.ndarray
    missed: np.ndarray


class Told(NamedTuple):
    """R^2 of another SAE's error norms, alone; share of what this leaves that the nonlinear part's norms add; R^2's null."""

    r2: float
    added: float
    null: float


def power_law(sizes: np.ndarray, fvu: np.ndarray) -> Law:
    """The least-squares law through fvu [..., S] at sizes [S] (widths or k): exact in floor and scale, exponent from EXPONENTS.

    Leading dimensions, such as resamples, are fitted each by itself. Raises UsageError for fewer than four different sizes:
    three numbers are fitted.
    """
    if len(set(np.asarray(sizes).tolist())) < 4:
        raise UsageError(f"a power law with a floor needs four different sizes, there are {len(set(np.asarray(sizes).tolist()))}")
    decay_ES = (np.asarray(sizes, dtype=float) / np.min(sizes)) ** -EXPONENTS[:, None]
    fvu_S = np.asarray(fvu, dtype=float)[..., None, :]
    middle_E, mean = decay_ES.mean(-1), fvu_S.mean(-1)
    slope = ((decay_ES - middle_E[:, None]) * fvu_S).sum(-1) / np.square(decay_ES - middle_E[:, None]).sum(-1)
    through_zero = (decay_ES * fvu_S).sum(-1) / np.square(decay_ES).sum(-1)
    floor = mean - slope * middle_E
    scale = np.where(floor < 0, through_zero, slope)
    floor, scale = np.where(scale < 0, mean, floor.clip(0)), scale.clip(0)
    missed = np.square(fvu_S - floor[..., None] - scale[..., None] * decay_ES).sum(-1)
    best = missed.argmin(-1)[..., None]
    floor, scale, missed = (np.take_along_axis(part, best, -1)[..., 0] for part in (floor, scale, missed))
    return Law(floor, scale, EXPONENTS[best[..., 0]], missed)


def bands(law: Law, fvu_nonlinear: np.ndarray) -> dict[str, np.ndarray]:
    """What the fitted curve consists of, following the paper's Figure 2; each [...] but `absent` [..., S] is left to the curve.

    nonlinear: mean over the sizes of the nonlinear FVU [..., S]; linear: the floor less that, the linear error that stays.
    """
    nonlinear = np.asarray(fvu_nonlinear).mean(-1)
    return {"floor": law.floor, "nonlinear": nonlinear, "linear": law.floor - nonlinear}


def norms_told(norm: Tensor, nonlinear: Tensor, other: Tensor, fitting: Tensor) -> Told:
    """How well one SAE's per-token error norms [N] tell another's (`other` [N]), and what its nonlinear part's norms add.

    fitting [N] bool: the tokens to fit on; the rest are scored. Unsquared lengths (notes of the paper's section 4.1).
    """
    target = other[:, None]
    r2s = []
    for columns in ([norm], [norm, nonlinear]):
        x = torch.stack(columns, 1)
        fitted = linear.fit(x[fitting], target[fitting])
        r2s.append(linear.r2(target[~fitting], fitted(x[~fitting])))
    null = -1 / (int(fitting.sum()) - 2)
    return Told(r2s[0], (r2s[1] - r2s[0]) / (1 - r2s[0]), null)
