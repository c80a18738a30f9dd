"""95% intervals by resampling documents; of one document alone there is none.

Sums are a table [G, M], or tables by name [G, ...]; a statistic maps sums [..., M], or sums by name
[..., ...], to [...]. Shapes: G documents, M summed quantities, R resamples.
"""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from saelab.statistics.estimate import Estimate

RESAMPLES = 1000
BLOCK = 50  # resamples held at once, where each is as wide as a dictionary
Sums = Any  # np.ndarray, scipy.sparse.csr_array or either by name


def weights(n_documents: int, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """[R, G] int: how often each resample holds each document (sampling with replacement). Efron
    and Tibshirani 1993, ch. 6."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(n_documents, np.full(n_documents, 1 / n_documents), size=resamples)


def over_documents(
    sums: Sums,
    statistic: Callable[[Any], np.ndarray],
    weights_RG: np.ndarray,
    null: float | None = None,
) -> Estimate:
    """`statistic` of the total sums, with its 2.5 and 97.5 percentiles over resampled documents.

    >>> mean = over_documents(sums_GM, lambda s: s[..., 1] / s[..., 0], weights(len(sums_GM)))
    >>> mean.value, mean.low, mean.high

    The same weights for two quantities make their comparison paired: see `difference`.
    """
    value = float(statistic(total(sums)))
    if _is_one(weights_RG):
        return Estimate(value, null=null)
    return Estimate(value, *percentiles(statistic(resampled(sums, weights_RG))), null)


def difference(
    mine: Sums,
    theirs: Sums,
    statistic: Callable[[Any], np.ndarray],
    weights_RG: np.ndarray,
) -> Estimate:
    """`statistic` of my sums less that of theirs, of the same documents in the same order; null 0.

    Paired: both are resampled together, so that what is hard in a document is hard for both.

    >>> better = difference(fvu_sums["a"], fvu_sums["b"], metrics.fvu, weights_RG)
    >>> better.excludes_zero
    """
    value = float(statistic(total(mine)) - statistic(total(theirs)))
    if _is_one(weights_RG):
        return Estimate(value, null=0.0)
    pair = (statistic(resampled(sums, weights_RG)) for sums in (mine, theirs))
    return Estimate(value, *percentiles(np.subtract(*pair)), 0.0)


def recentred(value: float, resampled_R: np.ndarray, null: float | None = None) -> Estimate:
    """A share with percentiles moved so that the resamples' mean is the value, cut to [0, 1].

    For shares of features: a resample holds fewer different documents than the sample, so its share
    of dead ones is too high.
    """
    shift = value - float(resampled_R.mean())
    low, high = (bound + shift for bound in percentiles(resampled_R))
    return Estimate(value, min(max(low, 0.0), value), max(min(high, 1.0), value), null)


def _is_one(weights_RG: np.ndarray) -> bool:
    """Whether there is one document: every resample is the sample, which says nothing of how far
    another would lie from it."""
    return weights_RG.shape[1] < 2


def percentiles(resampled_R: np.ndarray) -> tuple[float, float]:
    """The 2.5 and 97.5 percentiles of resamples."""
    low, high = np.percentile(resampled_R, [2.5, 97.5])
    return float(low), float(high)


def share_over_documents(
    sums: Sums,
    statistic: Callable[[Any], np.ndarray],
    weights_RG: np.ndarray,
    null: float | None = None,
) -> Estimate:
    """A share of features, such as that of the dead ones, `recentred`; sums [G, F] may be sparse
    and are resampled BLOCK at a time."""
    if _is_one(weights_RG):
        return Estimate(float(statistic(total(sums))), null=null)
    blocks = (weights_RG[first : first + BLOCK] for first in range(0, len(weights_RG), BLOCK))
    shares_R = np.concatenate([statistic(resampled(sums, block)) for block in blocks])
    return recentred(float(statistic(total(sums))), shares_R, null)


def total(sums: Sums) -> Any:
    """Sums [M], or [...] by name, over all documents."""
    return resampled(sums, None)


def resampled(sums: Sums, weights_RG: np.ndarray | None) -> Any:
    """Sums [R, M], or [R, ...] by name, of each resample (None: of all documents, without R)."""
    if isinstance(sums, Mapping):
        return {name: resampled(part, weights_RG) for name, part in sums.items()}
    if weights_RG is None:
        return sums.sum(axis=0)
    return np.tensordot(weights_RG, sums, 1) if isinstance(sums, np.ndarray) else weights_RG @ sums
