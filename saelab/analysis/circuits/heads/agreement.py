"""How well scores of heads agree with a known circuit, beside what knowing nothing gives.

Shapes: L layers, H heads, S repetitions.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.statistics import Estimate

RANDOM = 1000  # random scorings behind the null


class Agreement(NamedTuple):
    """How well scores rank the members. Both measures are None where the circuit holds no head or
    all of them."""

    auc: float | None
    """ROC AUC, 0.5 for random scores"""
    average_precision: float | None
    """n_members / n_heads for random scores"""
    n_members: int
    """heads of the circuit"""


def agreement(scores_LH: Tensor, members_LH: Tensor) -> Agreement:
    """Of the sizes |score| with membership in the circuit; equal scores count half (Fawcett
    2006)."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    members, n_members = members_LH.flatten().cpu().numpy(), int(members_LH.sum())
    if n_members in (0, len(members)):
        return Agreement(None, None, n_members)
    sizes = scores_LH.abs().flatten().double().cpu().numpy()
    return Agreement(
        float(roc_auc_score(members, sizes)),
        float(average_precision_score(members, sizes)),
        n_members,
    )


def random_auc(members_LH: Tensor, seed: int = 0) -> Estimate | None:
    """The AUC of RANDOM random scorings, its mean and 2.5 and 97.5 percentiles; None as in
    `agreement`."""
    members_K = members_LH.flatten().cpu()
    n_members, n_others = int(members_K.sum()), int((~members_K).sum())
    if not n_members or not n_others:
        return None
    rng = np.random.default_rng(seed)
    ranks_SK = rng.permuted(np.tile(np.arange(1, len(members_K) + 1), (RANDOM, 1)), axis=1)
    aucs_S = (ranks_SK[:, members_K.numpy()].sum(1) - n_members * (n_members + 1) / 2) / (
        n_members * n_others
    )
    low, high = np.percentile(aucs_S, [2.5, 97.5])
    return Estimate(float(aucs_S.mean()), float(low), float(high))


def layer_index_auc(members_LH: Tensor) -> float | None:
    """The AUC of the layer's number alone: what "later heads matter" explains."""
    layers_LH = torch.arange(float(len(members_LH)))[:, None].expand(members_LH.shape)
    return agreement(layers_LH, members_LH).auc


def rank_correlation(scores_LH: Tensor, effects_LH: Tensor) -> float:
    """Spearman's rank correlation of |score| with |effect|; 0 where the scores are all equal."""
    from scipy.stats import spearmanr

    sizes, effects = (
        scores_LH.abs().flatten().cpu().numpy(),
        effects_LH.abs().flatten().cpu().numpy(),
    )
    if np.ptp(sizes) == 0 or np.ptp(effects) == 0:
        return 0.0
    return float(spearmanr(sizes, effects).statistic)  # type: ignore[attr-defined]
