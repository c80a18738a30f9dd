"""Bars: the planted truth of probabilistic sparse coding (Foeldiak 1990): images of H = 2 R
horizontal and vertical bars on R x R pixels that superpose.

Shapes: N images, H bars, D = R^2 pixels.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Bars(NamedTuple):
    """Images with what they are made of."""

    x: Tensor
    """[N, D] float64"""
    W: Tensor
    """[H, D] the bars, of the given strength"""
    values: Tensor
    """[N, H]"""


def draw(
    family: str,
    n: int = 1000,
    side: int = 5,
    *,
    strength: float = 10.0,
    noise: float = 2.0,
    pi: float = 0.2,
    seed: int = 0,
) -> Bars:
    """Images in which each bar stands with probability pi: at full strength (bsc), light or dark
    (tsc), at a Gaussian strength about 0 (gsc).

    >>> bars = draw("tsc", seed=1)
    """
    random = torch.Generator().manual_seed(seed)
    image_HRR = torch.zeros(2 * side, side, side, dtype=torch.float64)
    for place in range(side):
        image_HRR[place, place] = strength
        image_HRR[side + place, :, place] = strength
    W_HD = image_HRR.flatten(1)
    on_NH = torch.rand(n, 2 * side, generator=random, dtype=torch.float64) < pi
    scale_NH = torch.ones(n, 2 * side, dtype=torch.float64)
    if family == "tsc":
        scale_NH = (torch.rand(n, 2 * side, generator=random) < 0.5).double() * 2 - 1
    if family == "gsc":
        scale_NH = torch.randn(n, 2 * side, generator=random, dtype=torch.float64)
    values_NH = on_NH * scale_NH
    noise_ND = noise * torch.randn(n, side * side, generator=random, dtype=torch.float64)
    return Bars(values_NH @ W_HD + noise_ND, W_HD, values_NH)
