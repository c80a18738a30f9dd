"""One number per seed: its mean with an interval where there are enough seeds for one."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from saelab.statistics.estimate import Estimate

ENOUGH = 3  # seeds from which an interval is given


def over_seeds(values_S: Sequence[float] | np.ndarray, null: float | None = None) -> Estimate:
    """The mean over seeds with Student's interval, mean -+ t(0.975, n - 1) spread / sqrt(n), from
    three seeds on; no value where a seed has none (NaN).

    For a comparison the values are differences within each seed (same data, same seed): that pairs
    it.

    >>> over_seeds([1.0, 2.0, 3.0]).value
    2.0
    """
    from scipy.stats import t

    n, mean = len(values_S), float(np.mean(values_S))
    if np.isnan(mean):
        return Estimate(None, null=null)
    if n < ENOUGH:
        return Estimate(mean, null=null)
    half = float(t.ppf(0.975, n - 1) * np.std(values_S, ddof=1) / n**0.5)
    return Estimate(mean, mean - half, mean + half, null)


Pairing = Literal["matched", "apart", "unknown"]


def between_seeds(
    first: Mapping[int, float], second: Mapping[int, float]
) -> tuple[Estimate, Pairing]:
    """What two configurations, numbers by seed, differ by (second less first; null 0), and how it
    is told: `matched`, Student's t over the differences within each of three seeds or more that
    both have; `apart`, Welch's t, where both have three but not the same; else `unknown`, the
    difference of the means without an interval.

    >>> between_seeds({0: 1.0, 1: 1.2, 2: 0.9}, {0: 2.1, 1: 2.0, 2: 2.2})[1]
    'matched'
    """
    common = sorted(set(first) & set(second))
    if len(common) >= ENOUGH:
        return over_seeds([second[seed] - first[seed] for seed in common], null=0.0), "matched"
    if not first or not second:
        return Estimate(None, null=0.0), "unknown"
    mine, theirs = list(first.values()), list(second.values())
    value = float(np.mean(theirs) - np.mean(mine))
    if np.isnan(value):
        return Estimate(None, null=0.0), "unknown"
    if min(len(mine), len(theirs)) < ENOUGH:
        return Estimate(value, null=0.0), "unknown"
    if np.ptp(mine) == np.ptp(theirs) == 0:
        return Estimate(value, value, value, 0.0), "apart"
    from scipy.stats import ttest_ind

    between = ttest_ind(theirs, mine, equal_var=False).confidence_interval(0.95)
    return Estimate(value, float(between.low), float(between.high), 0.0), "apart"


def spread(values_S: Sequence[float] | np.ndarray) -> float | None:
    """Standard deviation over seeds (n - 1), in the values' units; None for one seed."""
    return float(np.std(values_S, ddof=1)) if len(values_S) > 1 else None
