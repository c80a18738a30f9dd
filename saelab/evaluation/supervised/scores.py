"""The scores of a dictionary: sufficiency, necessity, edit agreement, F1 (Makelov et al. 2024,
section 4).

Each but F1 is a function of sums over prompts, so that prompts can be resampled.
Shapes: P prompts, F features, V attribute values, R resamples.
"""

from typing import NamedTuple

import numpy as np
from torch import Tensor

from saelab.errors import UsageError
from saelab.statistics import Estimate, over_documents, recentred

APPROXIMATION = (
    "clean",
    "mean",
    "kept",
    "removed",
)  # the task's metric m of four runs: the columns of `approximation`
LEAST = 0.05
EDITS = ("edits", "agree", "changed", "agree_changed", "magnitude")


def sufficiency(sums: np.ndarray) -> np.ndarray:
    """(m_kept - m_mean) / (m_clean - m_mean): a replaced by x_hat against a replaced by its mean.

    1 for a perfect dictionary, 0 for an empty one; the paper prints m_kept / m_clean, which an
    empty one need not score 0 in.
    """
    clean, mean, kept, _ = np.moveaxis(sums, -1, 0)
    return (kept - mean) / (clean - mean)


def necessity(sums: np.ndarray) -> np.ndarray:
    """1 - |m_mean - m_removed| / |m_mean - m_clean|: a replaced by mean + (a - x_hat), so that what
    x_hat explains is gone."""
    clean, mean, _, removed = np.moveaxis(sums, -1, 0)
    return 1 - np.abs(mean - removed) / np.abs(mean - clean)


def check_scale(clean_P: np.ndarray, mean_P: np.ndarray, weights_RP: np.ndarray) -> None:
    """Raise UsageError if m_clean - m_mean is less than LEAST of m_clean, or its interval holds 0:
    nothing to normalise by."""
    fall = over_documents(
        np.stack([clean_P - mean_P], 1), lambda s: s[..., 0] / len(clean_P), weights_RP
    )
    value, low, high, _ = fall
    if not fall.excludes_zero or abs(clean_P.mean() - mean_P.mean()) < LEAST * abs(clean_P.mean()):
        raise UsageError(
            f"the task's metric cannot be normalised: {clean_P.mean():.3g} on clean prompts, "
            f"{mean_P.mean():.3g} with mean activations in place, difference {value:.3g} "
            f"[{low:.3g}, {high:.3g}]: take another hook or other positions, or a task that the "
            "model can do"
        )


def edit_agreement(sums: np.ndarray) -> np.ndarray:
    """Share of edits after which the model predicts what it predicts under the ground-truth patch
    a_s -> a_t."""
    return sums[..., EDITS.index("agree")] / sums[..., EDITS.index("edits")]


def edit_success(sums: np.ndarray) -> np.ndarray:
    """The same share of those edits whose ground-truth patch changes the prediction: 0 for no edit,
    1 for the patch itself.

    Not a number if the patch changes none.
    """
    changed = sums[..., EDITS.index("changed")]
    return np.divide(
        sums[..., EDITS.index("agree_changed")],
        changed,
        out=np.full(np.shape(changed), np.nan),
        where=changed > 0,
    )


def edit_magnitude(sums: np.ndarray) -> np.ndarray:
    """Mean weight of what an edit removes, in units of all that the features reconstruct."""
    return sums[..., EDITS.index("magnitude")] / sums[..., EDITS.index("edits")]


class Explained(NamedTuple):
    """Per attribute value: its best latent, chosen by F1 on the fitting prompts, and that F1."""

    latent: Tensor
    f1: Tensor


def best_latents(on_PF: Tensor, truth_PV: Tensor) -> Explained:
    """For each value the latent that as a classifier (active or not) has the highest F1 = 2 TP / (2
    TP + FP + FN)."""
    truth_PV = truth_PV.to(on_PF.device)
    hits_VF = truth_PV.float().T @ on_PF.float()
    f1_VF = 2 * hits_VF / (truth_PV.sum(0)[:, None] + on_PF.sum(0)[None]).clamp_min(1)
    best = f1_VF.max(1)
    return Explained(best.indices, best.values)


def mean_f1(
    guess_PV: Tensor, truth_PV: Tensor, weights_RP: np.ndarray, null: float | None = None
) -> Estimate:
    """F1 of each value's classifier, averaged over the values that occur; 95%
    interval over prompts.

    guess, truth: bool. A value that a resample lacks is left out of that resample's mean.
    """
    guess, truth = guess_PV.double().numpy(), truth_PV.double().numpy()

    def score(weights: np.ndarray) -> np.ndarray:
        occurs, fires = weights @ truth, weights @ guess
        f1 = np.where(
            occurs > 0, 2 * (weights @ (guess * truth)) / np.maximum(occurs + fires, 1e-20), np.nan
        )
        return np.nanmean(f1, -1)

    value = float(score(np.ones(len(truth))))
    return recentred(value, score(weights_RP), null)
