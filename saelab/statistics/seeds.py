"""One number per seed: its mean, its spread, and an interval where there are enough seeds for
one."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

ENOUGH = 3  # seeds from which an interval is given


class Spread(NamedTuple):
    """mean; spread: standard deviation over seeds (n - 1; None for one seed); low, high: 95%
    interval of the mean, or None."""

    mean: float
    spread: float | None
    low: float | None
    high: float | None
    n: int


def over_seeds(values: Sequence[float]) -> Spread:
    """Student's interval of the mean over seeds, mean -+ t(0.975, n - 1) spread / sqrt(n), from
    three seeds on."""
    from scipy.stats import t

    n, mean = len(values), float(np.mean(values))
    spread = float(np.std(values, ddof=1)) if n > 1 else None
    if spread is None or n < ENOUGH:
        return Spread(mean, spread, None, None, n)
    half = float(t.ppf(0.975, n - 1)) * spread / n**0.5
    return Spread(mean, spread, mean - half, mean + half, n)
