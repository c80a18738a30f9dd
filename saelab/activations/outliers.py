"""Dimensions of a hook point that are far larger than the others, which a scale per token serves at
the others' cost.

Shapes: D width.
"""

from typing import NamedTuple

from torch import Tensor

# A step of int8 is 1/127 of a token's largest number. With a dimension of TIMES the median rms it
# adds (TIMES / 127)^2 / 12, some 0.0004, of every other dimension's variance to an SAE's input, and
# several times that on the tokens where the dimension is largest: about 1% of an FVU of 0.05.
TIMES = 8.0


class Outlier(NamedTuple):
    """A dimension."""

    dimension: int
    """its number"""
    times_median: float
    """its rms over the median dimension's"""


def outliers(rms_D: Tensor) -> list[Outlier]:
    """The dimensions whose rms is over TIMES the median dimension's, the largest first.

    >>> outliers(torch.tensor([1.0, 1.0, 30.0, 1.0]))
    [Outlier(dimension=2, times_median=30.0)]
    """
    times_D = rms_D.double() / rms_D.double().median().clamp_min(1e-300)  # of zeros
    order = times_D.argsort(descending=True)
    return [Outlier(int(i), float(times_D[i])) for i in order if times_D[i] > TIMES]
