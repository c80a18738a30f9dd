"""Concept alignment: does one feature of a dictionary tell where a concept is that nobody told it?

Stevens et al. 2025 (arXiv 2511.17735), section 5.2 there: for each concept the feature that ranks
positions best is chosen on the training owners (images, documents) and scored on the held-out ones
by average precision, by Purity@16 and by the share of concepts that reach an average precision of
0.3. Here it is chosen by average precision too, where the paper takes the logistic probe of lowest
loss. Features of signed codes are looked at on either side of 0. Shapes: N positions, F features, P
sides of features, C concepts, G owners, R resamples, L levels (distinct values) of one feature.
"""

from typing import NamedTuple

import numpy as np
import scipy.sparse

from saelab.errors import UsageError
from saelab.evaluation.ranked import Levels, average_precision, counts, purity, sides
from saelab.statistics import Estimate, weights
from saelab.statistics.bootstrap import percentiles

COVERED = 0.3  # average precision from which a concept is covered
LEAST = 20  # positions of a concept, and of none, in either split
SHUFFLES = 5
RESAMPLES = 1000
TOGETHER = 1 << 24  # numbers of resampled levels at once


class Labelled(NamedTuple):
    """Positions with what is known of them."""

    codes: scipy.sparse.csr_array
    """[N, F] values of features"""
    labels: np.ndarray
    """[N, C] bool"""
    owners: np.ndarray
    """[N] the image or document of each, one after the other"""


class Concept(NamedTuple):
    """What one feature tells of one concept."""

    name: str
    """of the concept"""
    feature: int
    """the one chosen"""
    side: int
    """1 or -1: which of its values count"""
    share: float
    """of the held-out positions that are of the concept: what a random order gets"""
    precision: Estimate
    """average precision, on the held-out owners; null: `share`"""
    purity: Estimate
    """share of the concept among the 16 held-out positions of the largest values"""


class Alignment(NamedTuple):
    """How well a dictionary's features align with concepts; intervals over held-out owners, nulls
    of labels shuffled by whole owners, for which features are chosen anew."""

    precision: Estimate
    """mean over concepts of the average precision"""
    purity: Estimate
    """mean over concepts of Purity@16"""
    coverage: Estimate
    """share of concepts of average precision 0.3 and more"""
    concepts: list[Concept]
    """each"""


def choose(train: list[list[Levels]], labels_NC: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(side number [C], feature [C]): the best by average precision on the training owners; ties to
    the first."""
    n_positions, n_concepts = labels_NC.shape
    total_C, ones_N1 = labels_NC.sum(0), np.ones((n_positions, 1))
    best = np.full(n_concepts, -1.0)
    chosen = np.zeros((2, n_concepts), dtype=np.int64)
    for side, features in enumerate(train):
        for feature, levels in enumerate(features):
            if not len(levels.rows):
                continue
            hits_CL = counts(levels, labels_NC, total_C)
            sizes_L = counts(levels, ones_N1, np.array([n_positions]))[0]
            reached_C = average_precision(hits_CL, sizes_L)
            better_C = reached_C > best
            best[better_C] = reached_C[better_C]
            chosen[:, better_C] = np.array([[side], [feature]])
    return chosen[0], chosen[1]


def align(
    train: Labelled,
    test: Labelled,
    names: list[str],
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
    shuffles: int = SHUFFLES,
) -> Alignment:
    """Choose a feature for each concept on the training owners, score it on the held-out ones.

    names: of the C concepts; those with fewer than 20 positions in either split are left out.
    Raises UsageError if none remains, and for an owner that stands on both sides.

    >>> aligned = align(train, test, ["sky", "wheel"])
    >>> aligned.precision.value, aligned.precision.null
    """
    if both := set(train.owners.tolist()) & set(test.owners.tolist()):
        raise UsageError(
            f"{len(both)} images or documents are held out and trained on: each belongs to one side"
        )
    kept = [c for c in range(len(names)) if enough(train.labels[:, c], test.labels[:, c])]
    if not kept:
        raise UsageError(
            f"none of {len(names)} concepts has {LEAST} positions in either split: label more"
        )
    train, test = (part._replace(labels=part.labels[:, kept]) for part in (train, test))
    levels, held = sides(train.codes), sides(test.codes)
    n_features = len(held[0])
    held += [[Levels(np.zeros(0, int), np.zeros(0, int))] * n_features] * (len(levels) - len(held))
    rng = np.random.default_rng(seed)
    nulls = []
    for _ in range(shuffles):
        mixed = [shuffled(part.labels, part.owners, rng) for part in (train, test)]
        once_1N = np.ones((1, len(mixed[1])))
        nulls.append(_scores(held, choose(levels, mixed[0]), mixed[1], once_1N)[:, 0])
    chosen = choose(levels, train.labels)
    owners, place_N = np.unique(test.owners, return_inverse=True)
    resamples = resamples if len(owners) > 1 else 0  # one alone does not say how others differ
    weights_RG = np.concatenate([np.ones((1, len(owners))), weights(len(owners), seed)[:resamples]])
    scores_2RC = np.concatenate(
        [
            _scores(held, chosen, test.labels, part_RG[:, place_N])
            for part_RG in np.array_split(
                weights_RG, -(-weights_RG.shape[0] * len(place_N) // TOGETHER)
            )
        ],
        axis=1,
    )
    return _stated(scores_2RC, nulls, chosen, [names[c] for c in kept], test.labels.mean(0))


def enough(train_N: np.ndarray, test_N: np.ndarray) -> bool:
    """Whether each split has LEAST positions of a concept, and as many without."""
    return min(min(part.sum(), (~part).sum()) for part in (train_N, test_N)) >= LEAST


def shuffled(labels_NC: np.ndarray, owners_N: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The labels of whole owners in random order, laid over the positions one after the other: of
    images of one size each gets another's."""
    starts = np.flatnonzero(np.diff(owners_N, prepend=owners_N[0] - 1))
    pieces = np.split(labels_NC, starts[1:])
    return np.concatenate([pieces[i] for i in rng.permutation(len(pieces))])


def _scores(
    held: list[list[Levels]],
    chosen: tuple[np.ndarray, np.ndarray],
    labels_NC: np.ndarray,
    weights_RN: np.ndarray,
) -> np.ndarray:
    """[2, R, C]: average precision and purity of the chosen features, every position counted as
    often as each resample has its owner; NaN where a resample has none of the concept."""
    rows = []
    for concept, (side, feature) in enumerate(zip(*chosen, strict=True)):
        levels, label_N = held[side][feature], labels_NC[:, concept]
        hits_RL = _weighed(levels, weights_RN * label_N)
        sizes_RL = _weighed(levels, weights_RN)
        precision_R = average_precision(hits_RL, sizes_RL)
        purity_R = np.where(np.isnan(precision_R), np.nan, purity(hits_RL, sizes_RL))
        rows.append([precision_R, purity_R])
    return np.array(rows).transpose(1, 2, 0)


def _weighed(levels: Levels, counted_RN: np.ndarray) -> np.ndarray:
    """[R, L]: sums of counted_RN over the positions of each level."""
    return counts(levels, counted_RN.T, counted_RN.sum(1))


def _stated(
    scores_2RC: np.ndarray,
    nulls: list[np.ndarray],
    chosen: tuple[np.ndarray, np.ndarray],
    names: list[str],
    share_C: np.ndarray,
) -> Alignment:
    """Estimates of the scores, the first resample of which is the sample itself."""
    precision_RC, purity_RC = scores_2RC
    null_SC, null_purity_SC = np.stack(nulls, 1) if nulls else (None, None)
    concepts = [
        Concept(
            name,
            int(chosen[1][c]),
            1 - 2 * int(chosen[0][c]),
            float(share_C[c]),
            _estimate(precision_RC[:, c], share_C[c : c + 1]),
            _estimate(purity_RC[:, c], share_C[c : c + 1]),
        )
        for c, name in enumerate(names)
    ]
    return Alignment(
        _estimate(np.nanmean(precision_RC, 1), null_SC),
        _estimate(np.nanmean(purity_RC, 1), null_purity_SC),
        _estimate(_covered(precision_RC), None if null_SC is None else null_SC >= COVERED),
        concepts,
    )


def _covered(precision_RC: np.ndarray) -> np.ndarray:
    """[R]: the share of the concepts that each resample has."""
    return np.nanmean(np.where(np.isnan(precision_RC), np.nan, precision_RC >= COVERED), 1)


def _estimate(values_R: np.ndarray, null: np.ndarray | None) -> Estimate:
    """The first value with the percentiles of the others; null: the mean of what chance gave."""
    by_chance = None if null is None else float(np.nanmean(null))
    if len(values_R) < 2:
        return Estimate(float(values_R[0]), null=by_chance)
    held_R = values_R[1:][~np.isnan(values_R[1:])]
    return Estimate(float(values_R[0]), *percentiles(held_R), by_chance)
