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
# Of an absorbing latent: its cosine with the probe's direction, its share of the activation's
# projection on it; of latents that absorb a part: their cosine, and how many are counted.
COSINE, SHARE = 0.025, 0.4
PARTLY, COUNTED = 0.1, 3


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
    """theirs, on the examples that they are chosen on"""
    main_sums: np.ndarray
    """[G, 2] by document: twice the examples that they find rightly; those found, and those there
    are, whose ratio of totals main_f1 is"""
    absorbers: dict[int, int]
    """latent -> tokens that it absorbs"""
    absorbed: np.ndarray
    """[M] bool: which of the M tokens of the rate are absorbed"""
    groups: np.ndarray
    """[M]: their documents"""
    fraction: Estimate
    """mean over those tokens of the part that other latents carry of the property, interval over
    documents; None where the probe's F1 is too low"""
    fractions: np.ndarray
    """[M] that part, from 0 to 1"""


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
        unknown, none = Estimate(None), np.zeros(0)
        sums = np.zeros((0, 2))
        return Absorption(unknown, probe_f1, [], 0.0, sums, {}, none > 0, none, unknown, none)
    main, told_N = _main_latents(probing.latents(sae, x_train), y_train, signed=sae.sparsify.signed)
    rows = np.flatnonzero(found_N & y_test)
    x_test = test.x[torch.from_numpy(rows)]
    added = _Added.of(sae, probing.latents(sae, x_test), x_test, dense.direction, main)
    by_N, part_N = _absorbers(added), _fractions(added)
    rate = probing.share(by_N >= 0, test.groups[rows], seed)
    latents, counts = np.unique(by_N[by_N >= 0], return_counts=True)
    return Absorption(
        rate,
        probe_f1,
        main,
        _f1(told_N, y_train),
        _f1_sums(told_N, y_train, train.groups[picked]),
        dict(zip(latents.tolist(), counts.tolist(), strict=True)),
        by_N >= 0,
        test.groups[rows],
        probing.share(part_N, test.groups[rows], seed),
        part_N,
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


def _f1_sums(found_N: np.ndarray, y_N: np.ndarray, groups_N: np.ndarray) -> np.ndarray:
    """[G, 2]: by document what F1 is the ratio of."""
    _, group_N = np.unique(groups_N, return_inverse=True)
    counts = (2.0 * (found_N & y_N), found_N.astype(float) + y_N)
    return np.stack([np.bincount(group_N, each) for each in counts], 1)


def _main_latents(
    z_train: probing.Inputs, y_train: np.ndarray, *, signed: bool
) -> tuple[list[int], np.ndarray]:
    """The latents that a sparse probe uses while each further one raises its F1 by JUMP, best
    first; and [N] bool, which examples it then finds. Latents that fire where the property is
    missing do not say it: of an SAE whose values have one sign only what is larger with it is
    asked."""
    from sklearn.linear_model import LogisticRegression

    sides = (z_train[y_train == side].mean(0) for side in (True, False))
    on_F, off_F = (np.asarray(side).ravel() for side in sides)
    order = np.argsort(-np.abs(on_F - off_F) if signed else off_F - on_F, kind="stable")
    best, told_N = 0.0, np.zeros(len(y_train), dtype=bool)
    for k in range(1, MOST + 1):
        z_NK = z_train[:, order[:k]].toarray()
        scale_K = np.sqrt(np.square(z_NK).mean(0))
        z_NK = z_NK / np.where(scale_K > 0, scale_K, 1)
        found_N = LogisticRegression(max_iter=1000).fit(z_NK, y_train).predict(z_NK)
        if k > 1 and _f1(found_N, y_train) < best + JUMP:
            return order[: k - 1].tolist(), told_N
        best, told_N = _f1(found_N, y_train), found_N
    return order[:MOST].tolist(), told_N


class _Added(NamedTuple):
    """What latents add along a unit direction."""

    by_NF: probing.Inputs
    """[N, F] sparse: each latent on each token"""
    cosine_F: np.ndarray
    """[F] of each decoder row with the direction"""
    main: list[int]
    """the property's latents"""
    silent_N: np.ndarray
    """[N] bool: none of them fires"""
    whole_N: np.ndarray
    """[N] the activation's own part along the direction, from b_dec on"""

    @classmethod
    def of(
        cls,
        sae: SAE,
        z_NF: probing.Inputs,
        x_ND: torch.Tensor,
        direction_D: torch.Tensor,
        main: list[int],
    ) -> "_Added":
        """Of codes z and activations x."""
        W_dec_FD, b_dec_D = (w.detach().float().cpu() for w in (sae.W_dec, sae.b_dec))
        unit_D = direction_D / direction_D.norm()
        along_F = (W_dec_FD @ unit_D).double().numpy()
        cosine_F = cosine_similarity(W_dec_FD, unit_D[None]).numpy()
        silent_N = np.asarray(abs(z_NF[:, main]).sum(axis=1)).ravel() == 0
        whole_N = ((x_ND - b_dec_D) @ unit_D).double().numpy()
        return cls(z_NF.multiply(along_F[None]).tocsr(), cosine_F, main, silent_N, whole_N)


def _absorbers(added: _Added) -> np.ndarray:
    """[N]: the latent that absorbs each token, -1 where none does."""
    top_N = np.asarray(added.by_NF.argmax(axis=1)).ravel()
    most_N = np.asarray(added.by_NF[np.arange(len(top_N)), top_N]).ravel()
    much_N = (most_N > 0) & (most_N >= SHARE * added.whole_N)
    absorbed_N = added.silent_N & much_N & (added.cosine_F[top_N] >= COSINE)
    return np.where(absorbed_N, top_N, -1)


def _fractions(added: _Added) -> np.ndarray:
    """[N]: the part of the property that other latents carry: m / (m + M) of what the main latents
    add, M, and the COUNTED best others of cosine PARTLY, A; m = min(A, whole - M). 0 where M is the
    whole or A below SHARE of it, 1 where M is not positive."""
    main_N = np.asarray(added.by_NF[:, added.main].sum(axis=1)).ravel()
    others = np.flatnonzero(added.cosine_F >= PARTLY)
    others = others[~np.isin(others, added.main)]
    rest_NO = np.maximum(added.by_NF[:, others].toarray(), 0)
    best_NO = np.sort(rest_NO, axis=1)[:, -COUNTED:]
    absorbing_N = best_NO.sum(1)
    lacks_N = np.minimum(absorbing_N, added.whole_N - main_N)
    both_N = lacks_N + main_N
    part_N = np.divide(lacks_N, both_N, out=np.ones(len(both_N)), where=both_N > 0)
    part_N = np.where(main_N <= 0, 1.0, part_N.clip(0, 1))
    little_N = (main_N >= added.whole_N) | (absorbing_N < SHARE * added.whole_N)
    return np.where(little_N, 0.0, part_N)
