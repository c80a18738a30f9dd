"""How two SAEs differ on the same documents: a difference, its interval, and which of the two it
speaks for.

Shapes: G documents, R resamples; sums as in `bootstrap`.
"""

from collections.abc import Callable
from typing import Any, Literal

import numpy as np

from saelab.statistics.bootstrap import (
    BLOCK,
    Sums,
    percentiles,
    resampled,
    total,
    weights,
)
from saelab.statistics.estimate import Estimate

FEW = 30  # documents; below that percentiles of resamples are too narrow
Verdict = Literal["better", "worse", "not told apart"]


def paired(
    mine: Sums,
    theirs: Sums,
    statistic: Callable[[Any], np.ndarray],
    n_documents: int,
    seed: int = 0,
    *,
    of_features: bool = False,
) -> Estimate:
    """`statistic` of my sums less that of theirs, of the same documents in the same order; null 0.

    From FEW documents on its interval is that of a paired bootstrap over documents (percentiles);
    below, Student's t of the jackknife's pseudo-values (Efron and Tibshirani 1993, ch. 11); of one
    document there is none. of_features: sums [G, F] are of features, of which a resample sees
    fewer than there are: its percentiles are moved so that the resamples' mean is the value.

    >>> change = paired(sums["b"], sums["a"], metrics.fvu, n_documents)
    >>> verdict(change, "lower")
    """
    value = float(statistic(total(mine)) - statistic(total(theirs)))
    if n_documents < 2:
        return Estimate(value, null=0.0)
    few = n_documents < FEW
    weights_RG = 1 - np.eye(n_documents) if few else weights(n_documents, seed)
    step = BLOCK if of_features else len(weights_RG)
    difference_R = np.concatenate(
        [
            statistic(resampled(mine, block)) - statistic(resampled(theirs, block))
            for block in (weights_RG[at : at + step] for at in range(0, len(weights_RG), step))
        ]
    )
    if few:
        return _students(value, difference_R)
    shift = value - float(difference_R.mean()) if of_features else 0.0
    low, high = percentiles(difference_R)
    return Estimate(value, low + shift, high + shift, 0.0)


def _students(value: float, without_G: np.ndarray) -> Estimate:
    """The value with Student's interval over the pseudo-values n value - (n - 1) without_g."""
    from scipy.stats import t

    n = len(without_G)
    spread = (n - 1) * float(np.std(without_G, ddof=1))
    half = float(t.ppf(0.975, n - 1)) * spread / n**0.5
    return Estimate(value, value - half, value + half, 0.0)


def verdict(difference: Estimate, better: str) -> Verdict | None:
    """What a difference says of the first of the two, where `better` is "lower" or "higher"; None
    where neither is better ("none").

    >>> verdict(Estimate(-0.01, -0.02, -0.005), "lower")
    'better'
    """
    if better not in ("lower", "higher"):
        return None
    if not difference.excludes_zero:
        return "not told apart"
    return "better" if difference.below(0) == (better == "lower") else "worse"


def least(difference: Estimate) -> float | None:
    """The least measured difference that these documents could tell from 0: half the interval.

    A true difference of 1.4 times that is told apart in 80% of samples of so many documents.
    """
    if difference.low is None or difference.high is None:
        return None
    return (difference.high - difference.low) / 2
