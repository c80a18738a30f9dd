"""Faithfulness of the circuit made of the best n heads, for every n, and its two areas.

Heads outside are resampled from the corrupted twin, MLPs stay. CPR (Mueller et al. 2025, section
3.3) ranks by signed score and integrates f: high where few heads give the performance. CMD ranks by
|score| and integrates |1 - f|: low where few heads give the behaviour. With f(0) = 0 by definition.

Shapes: P prompts, L layers, H heads.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.circuits.heads import ablation
from saelab.analysis.circuits.heads.ablation import Setting

SMALL = 10  # every size up to here is measured, larger ones on a geometric grid


class Point(NamedTuple):
    """How faithful the circuit of one size is: an Estimate over prompts after its size."""

    size: int
    """heads in the circuit"""
    value: float | None
    """faithfulness"""
    low: float | None
    """lower end of its 95% interval"""
    high: float | None
    """upper end of it"""
    null: float | None = None
    """as in an Estimate"""


class Areas(NamedTuple):
    """Areas under a curve of sizes 0 to n, in units of the axis's length."""

    linear: float
    """linear in size"""
    log: float
    """logarithmic in size, from size 1 on"""


def sizes(n_heads: int) -> list[int]:
    """The circuit sizes measured: 0 to SMALL, then a geometric grid that ends at n_heads."""
    grid = np.geomspace(SMALL, n_heads, 8) if n_heads > SMALL else []
    return sorted({*range(min(SMALL, n_heads) + 1), *(round(size) for size in grid), n_heads})


def order(scores_LH: Tensor, signed: bool) -> Tensor:
    """Indices of the flattened heads, best first: by score, or by size; equal ones in the order of
    computation."""
    keys = scores_LH.flatten() if signed else scores_LH.abs().flatten()
    return keys.sort(descending=True, stable=True).indices


def curve(
    setting: Setting,
    scores_LH: Tensor,
    *,
    signed: bool = False,
    at: Sequence[int] | None = None,
) -> list[Point]:
    """Faithfulness at each size in `at` (default `sizes`)."""
    best, points = order(scores_LH, signed), []
    for size in at or sizes(len(best)):
        outside = torch.ones(len(best), dtype=torch.bool)
        outside[best[:size].cpu()] = False
        circuit_P = setting.run(outside.view(scores_LH.shape))
        points.append(Point(size, *ablation.faithfulness(setting.base, circuit_P)))
    return points


def cpr(points: Sequence[Point]) -> Areas:
    """Area under f; 1 for a circuit that is faithful from the first head on, but for the linear
    axis's first step."""
    return _areas([p.size for p in points], _values(points))


def cmd(points: Sequence[Point]) -> Areas:
    """Area under |1 - f|; 0 is best."""
    return _areas([p.size for p in points], np.abs(1 - _values(points)))


def _values(points: Sequence[Point]) -> np.ndarray:
    return np.array([point.value for point in points], dtype=float)


def _areas(at: Sequence[int], values: np.ndarray) -> Areas:
    """Trapezoids over size / n from 0 to 1, and over log(size) / log(n) from size 1 on. `at`
    ascends from 0."""
    linear = float(np.trapezoid(values, np.array(at) / at[-1]))
    return Areas(
        linear,
        float(np.trapezoid(values[1:], np.log(at[1:])) / np.log(at[-1]))
        if at[-1] > 1
        else float(values[-1]),
    )
