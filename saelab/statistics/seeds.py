"""One number per seed: its mean with an interval where there are enough seeds for one."""

from collections.abc import Sequence

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


def spread(values_S: Sequence[float] | np.ndarray) -> float | None:
    """Standard deviation over seeds (n - 1), in the values' units; None for one seed."""
    return float(np.std(values_S, ddof=1)) if len(values_S) > 1 else None
