"""95% intervals by resampling documents.

Shapes: G documents, M summed quantities, R resamples.
"""

from collections.abc import Callable

import numpy as np

RESAMPLES = 1000


def weights(n_documents: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """[R, G] int: how often each resample holds each document (sampling with replacement). Efron
    and Tibshirani 1993, ch. 6."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=resamples)


def interval(
    sums_GM: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], weights_RG: np.ndarray
) -> tuple[float, float, float]:
    """(value, low, high): `statistic` of the total sums, and its 2.5 and 97.5 percentiles over
    resampled documents.

    statistic maps sums [..., M] to [...]. The same weights for two quantities make their comparison
    paired.
    """
    value = float(statistic(sums_GM.sum(0)))
    low, high = np.percentile(statistic(weights_RG @ sums_GM), [2.5, 97.5])
    return value, float(low), float(high)


def recentred_interval(value: float, resampled_R: np.ndarray) -> tuple[float, float, float]:
    """(value, low, high): percentiles moved so that the resamples' mean is the value, cut to [0,
    1].

    For shares of features: a resample holds fewer different documents than the sample, so its share
    of dead ones is too high.
    """
    low, high = np.percentile(resampled_R, [2.5, 97.5]) - resampled_R.mean() + value
    return value, float(np.clip(low, 0, value)), float(np.clip(high, value, 1))
