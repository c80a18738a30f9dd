"""Levels that are learned: JumpReLU's straight-through gradients (Rajamanoharan et al. 2024,
section 3 and appendix C).

A pair is near its level if its pre-activation lies within bandwidth / 2 of it; `choose` reports
those below with value 0. Shapes: B tokens, F features, N pairs.
"""

import torch
from torch import Tensor

from saelab.code import Code


def near(code: Code, levels_F: Tensor, bandwidth: float) -> Tensor:
    """[N] bool: the pairs within bandwidth / 2 of their level, on either side, of a code chosen
    with that bandwidth."""
    return code.values.detach() - levels_F.detach()[code.features] < bandwidth / 2


def through(code: Code, levels_F: Tensor, bandwidth: float) -> Code:
    """The same values, now differentiable in the levels: d value / d level = -level / bandwidth for
    pairs near it."""
    level_N = levels_F[code.features]
    slope_N = torch.where(near(code, levels_F, bandwidth), level_N.detach() / bandwidth, 0)
    return code.with_values(code.values - slope_N * (level_N - level_N.detach()))


def l0(code: Code, levels_F: Tensor, bandwidth: float) -> Tensor:
    """Mean number of firing features per token; d L0 / d level = -(pairs near it) / (bandwidth x
    B)."""
    close_N = near(code, levels_F, bandwidth)
    slope = levels_F[code.features[close_N]].sum() / (bandwidth * code.n_tokens)
    return (code.values != 0).sum() / code.n_tokens - (slope - slope.detach())
