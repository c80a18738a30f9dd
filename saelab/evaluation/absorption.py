"""Absorption: a latent for a property stays silent on some tokens that have it, and their own
latents carry the property instead.

Chanin et al. 2024 (arXiv 2409.14507), with the thresholds of SAEBench (arXiv 2503.09532).
Shapes: N examples, F latents, D width, K main latents.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch.nn.functional import cosine_similarity

from saelab.evaluation import probing
from saelab.evaluation.labelled import Labelled
from saelab.sae import SAE
from saelab.statistics import Estimate

PROBE_F1 = 0.6  # a property that a dense probe tells less well than this is not in the activations
JUMP, MOST = 0.03, 10  # a further main latent must raise F1 by JUMP; there are at most MOST
COSINE, SHARE = (
    0.025,
    0.4,
)  # of an absorbing latent: with the probe's direction, and of the activation's projection on it


class Absorption(NamedTuple):
    """How often a property is absorbed."""

    rate: Estimate
    """share of the tokens that have the property, and that the dense probe finds, on which it is
    absorbed, interval over documents; None where the probe's F1 is too low"""
    probe_f1: float
    """of the dense probe, balanced"""
    main: list[int]
    """[K]: the property's latents"""
    main_f1: float
    """theirs"""
    absorbers: dict[int, int]
    """latent -> tokens that it absorbs"""
    absorbed: np.ndarray
    """[M] bool: which of the M tokens of the rate are absorbed"""
    groups: np.ndarray
    """[M]: their documents"""


def absorption(sae: SAE, train: Labelled, test: Labelled, label: str, seed: int = 0) -> Absorption:
    """How often `label` is absorbed. On a token it is when no main latent fires and the latent that
    adds most along the probe's direction p has cosine >= 0.025 with p and adds at least 0.4 of (x -
    b_dec) . p.

    A low rate of an SAE whose main latents have a low F1 (an untrained one, say) is no merit: print
    main_f1 beside it. Raises UsageError, from the encoder, for activations of another width.
    """
    picked = probing.balanced(train.labels[label], probing.PER_CLASS, seed)
    x_train, y_train, y_test = (
        train.x[torch.from_numpy(picked)],
        train.labels[label][picked],
        test.labels[label],
    )
    dense = _dense_probe(x_train, y_train)
    found_N = dense.finds(test.x)
    even = probing.balanced(y_test, probing.PER_CLASS, seed)
    probe_f1 = _f1(found_N[even], y_test[even])
    if probe_f1 < PROBE_F1:
        return Absorption(Estimate(None), probe_f1, [], 0.0, {}, np.zeros(0, bool), np.zeros(0))
    z_train, z_test = probing.latents(sae, x_train), probing.latents(sae, test.x)
    main, main_f1 = _main_latents(z_train, y_train)
    rows = np.flatnonzero(found_N & y_test)
    by_N = _absorbers(sae, z_test[rows], test.x[torch.from_numpy(rows)], dense.direction, main)
    rate = probing.share(by_N >= 0, test.groups[rows], seed)
    latents, counts = np.unique(by_N[by_N >= 0], return_counts=True)
    return Absorption(
        rate,
        probe_f1,
        main,
        main_f1,
        dict(zip(latents.tolist(), counts.tolist(), strict=True)),
        by_N >= 0,
        test.groups[rows],
    )


class _Dense(NamedTuple):
    """A linear probe on activations: x @ direction [D] + offset is above 0 where the property is
    found."""

    direction: torch.Tensor
    offset: float

    def finds(self, x_ND: torch.Tensor) -> np.ndarray:
        """[N] bool."""
        return (x_ND @ self.direction + self.offset > 0).numpy()


def _dense_probe(x_ND: torch.Tensor, y_N: np.ndarray) -> _Dense:
    """Logistic regression (L2, C = 1) on standardised activations."""
    from sklearn.linear_model import LogisticRegression

    mean_D, scale_D = x_ND.mean(0), x_ND.std(0).clamp_min(1e-12)
    fitted = LogisticRegression(max_iter=1000).fit(
        ((x_ND - mean_D) / scale_D).double().numpy(), y_N
    )
    direction_D = torch.from_numpy(fitted.coef_[0]).float() / scale_D
    return _Dense(direction_D, float(fitted.intercept_[0] - mean_D @ direction_D))


def _f1(found_N: np.ndarray, y_N: np.ndarray) -> float:
    return float(2 * (found_N & y_N).sum() / max(1, found_N.sum() + y_N.sum()))


def _main_latents(z_train: probing.Inputs, y_train: np.ndarray) -> tuple[list[int], float]:
    """The latents that a sparse probe uses while each further one raises its F1 by JUMP, best
    first; and the last F1."""
    from sklearn.linear_model import LogisticRegression

    order = probing.rank(probing.Examples(z_train, y_train, y_train))
    best = 0.0
    for k in range(1, MOST + 1):
        z_NK = z_train[:, order[:k]].toarray()
        scale_K = np.sqrt(np.square(z_NK).mean(0))
        z_NK = z_NK / np.where(scale_K > 0, scale_K, 1)
        f1 = _f1(LogisticRegression(max_iter=1000).fit(z_NK, y_train).predict(z_NK), y_train)
        if k > 1 and f1 < best + JUMP:
            return order[: k - 1].tolist(), best
        best = f1
    return order[:MOST].tolist(), best


def _absorbers(
    sae: SAE, z_NF: probing.Inputs, x_ND: torch.Tensor, direction_D: torch.Tensor, main: list[int]
) -> np.ndarray:
    """[N]: the latent that absorbs each token, -1 where none does."""
    W_dec_FD, b_dec_D = (w.detach().float().cpu() for w in (sae.W_dec, sae.b_dec))
    along_F = (W_dec_FD @ direction_D).double().numpy()
    cosine_F = cosine_similarity(W_dec_FD, direction_D[None]).numpy()
    added_NF = z_NF.multiply(along_F[None]).tocsr()
    top_N = np.asarray(added_NF.argmax(axis=1)).ravel()
    most_N = np.asarray(added_NF[np.arange(len(top_N)), top_N]).ravel()
    silent_N = np.asarray(abs(z_NF[:, main]).sum(axis=1)).ravel() == 0
    whole_N = ((x_ND - b_dec_D) @ direction_D).double().numpy()
    absorbed_N = silent_N & (most_N > 0) & (cosine_F[top_N] >= COSINE) & (most_N >= SHARE * whole_N)
    return np.where(absorbed_N, top_N, -1)
