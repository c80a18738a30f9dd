"""Two prompts beside each other: the features of which one has more than the other.

Shapes: M features that fire in either, N pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.prompts.features import By, Table, column
from saelab.errors import UsageError


class Comparison(NamedTuple):
    """Each feature at its strongest token in both prompts, by falling size of the difference."""

    feature: Tensor
    """[M] int64"""
    first: Tensor
    """[M]: what the order goes by (value, value over its usual one, estimated effect), at the token
    where it is largest in size; 0 where the feature does not fire"""
    second: Tensor
    """[M]: the same in the second prompt"""
    at_first: Tensor
    """[M] int64: the position of that token, -1 where the feature does not fire"""
    at_second: Tensor
    """[M] int64"""


def compare(first: Table, second: Table, by: By = "value") -> Comparison:
    """Every feature that fires in one of the prompts. Raises UsageError for an order whose numbers
    one of the tables lacks.

    >>> both = compare(table(read(model, sae, a)), table(read(model, sae, b)))
    >>> both.feature[:10], (both.second - both.first)[:10]
    """
    features_M = torch.cat([first.feature, second.feature]).unique()
    peaks = [_peaks(rows, by, features_M) for rows in (first, second)]
    (one_M, at_one_M), (other_M, at_other_M) = peaks
    order_M = (other_M - one_M).abs().argsort(descending=True, stable=True)
    columns = (features_M, one_M, other_M, at_one_M, at_other_M)
    return Comparison(*(values_M[order_M] for values_M in columns))


def _peaks(rows: Table, by: By, features_M: Tensor) -> tuple[Tensor, Tensor]:
    """The number of largest size of each of those features, and its position."""
    numbers_N = column(rows, by).nan_to_num(nan=0.0)
    place_N = torch.searchsorted(features_M, rows.feature)
    peak_M = numbers_N.new_zeros(len(features_M))
    at_M = torch.full_like(features_M, -1)
    # The strongest is written last, so that it is what stays.
    for row in numbers_N.abs().argsort(stable=True).tolist():
        place = place_N[row]
        peak_M[place] = numbers_N[row]
        at_M[place] = rows.position[row]
    return peak_M, at_M


def differing(first: list[int], second: list[int]) -> int:
    """The first position at which two prompts' tokens differ; the shorter one's length where it
    begins the other. Raises UsageError for two that are the same."""
    for at, (one, other) in enumerate(zip(first, second, strict=False)):
        if one != other:
            return at
    if len(first) == len(second):
        raise UsageError("the two texts have the same tokens: there is nothing to compare")
    return min(len(first), len(second))
