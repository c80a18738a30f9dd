"""Concept alignment on worlds where it is known which feature tells what."""

import numpy as np
import pytest
import scipy.sparse
from sklearn.metrics import average_precision_score

from saelab.errors import UsageError
from saelab.evaluation import alignment, ranked
from saelab.evaluation.alignment import Labelled, align
from saelab.evaluation.ranked import average_precision, purity

OWNERS, EACH, F = 40, 25, 6


def planted(seed: int, first: int, *, signed: bool = False) -> Labelled:
    """Two concepts: feature 1 tells the first with a little noise; of feature 4 the negative side
    tells the second (or, where codes are not signed, feature 5 does)."""
    rng = np.random.default_rng(seed)
    n = OWNERS * EACH
    labels = rng.random((n, 2)) < (0.2, 0.1)
    # Concepts come by whole owners too: what is shuffled must keep that.
    labels[: n // 2, 1] = False
    codes = rng.random((n, F)) * (rng.random((n, F)) < 0.3)
    codes[:, 1] = np.where(labels[:, 0], 0.5 + rng.random(n), codes[:, 1] * 0.9)
    tells = np.where(labels[:, 1], 1 + rng.random(n), 0.0)
    codes[:, 4 if signed else 5] = -tells if signed else tells
    owners = np.repeat(np.arange(first, first + OWNERS), EACH)
    return Labelled(scipy.sparse.csr_array(codes), labels, owners)


def test_average_precision_and_purity_by_hand():
    hits, sizes = np.array([1, 0, 1, 1]), np.array([1, 1, 1, 4])
    assert average_precision(hits, sizes) == pytest.approx((1 + 2 / 3 + 3 / 7) / 3)
    assert purity(hits, sizes, 2) == 0.5
    # Five places: three whole levels, two of the four equal ones of which one is right.
    assert purity(hits, sizes, 5) == pytest.approx((2 + 2 / 4) / 5)


def test_average_precision_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    scores = np.round(rng.random(500) * (rng.random(500) < 0.6), 1)
    labels = rng.random((500, 3)) < 0.3
    levels = ranked.sides(scipy.sparse.csr_array(scores[:, None]))[0][0]
    hits_CL = ranked.counts(levels, labels, labels.sum(0))
    sizes_L = ranked.counts(levels, np.ones((500, 1)), np.array([500]))[0]
    theirs = [average_precision_score(labels[:, c], scores) for c in range(3)]
    assert average_precision(hits_CL, sizes_L) == pytest.approx(theirs)
    # A ranking that breaks ties by row number is another number: the checker sees it.
    order = np.argsort(-scores, kind="stable")
    broken = average_precision(labels[order, 0].astype(int), np.ones(500))
    assert broken != pytest.approx(theirs[0], abs=1e-4)


@pytest.mark.parametrize("signed", [False, True])
def test_the_telling_features_are_found_and_stand_above_chance(signed: bool):
    train, test = planted(0, 0, signed=signed), planted(1, OWNERS, signed=signed)
    aligned = align(train, test, ["first", "second"], resamples=200)
    first, second = aligned.concepts
    assert (first.feature, first.side) == (1, 1)
    assert (second.feature, second.side) == ((4, -1) if signed else (5, 1))
    assert second.precision.value == 1.0 and first.precision.value > 0.6
    assert first.precision.null == pytest.approx(0.2, abs=0.03)
    assert aligned.coverage.value == 1.0
    assert aligned.precision.null is not None and aligned.precision.null < 0.35
    assert aligned.precision.above(aligned.precision.null)

    # Labels that belong to other images: nothing is told, and the interval says so.
    rng = np.random.default_rng(2)
    wrong = [
        part._replace(labels=alignment.shuffled(part.labels, part.owners, rng))
        for part in (train, test)
    ]
    nothing = align(*wrong, ["first", "second"], resamples=200)
    assert not nothing.precision.above(nothing.precision.null + 0.1)


def test_features_are_chosen_on_training_owners_alone():
    train, test = planted(0, 0), planted(1, OWNERS)
    # On the held-out owners another feature is perfect; only a leak would find it.
    codes = test.codes.toarray()
    codes[:, 2] = test.labels[:, 0]
    leaky = test._replace(codes=scipy.sparse.csr_array(codes))
    assert align(train, leaky, ["first", "second"], resamples=2).concepts[0].feature == 1
    assert align(leaky, train, ["first", "second"], resamples=2).concepts[0].feature == 2


def test_a_resample_without_a_concept_says_nothing_of_it_and_one_image_has_no_interval():
    train, test = planted(0, 0), planted(1, OWNERS)
    first_image = test.owners == OWNERS
    labels = np.stack([test.labels[:, 0], first_image], 1)  # a third of the resamples has none
    codes = test.codes.toarray()
    codes[:, 1], codes[:, 5] = labels.T
    told = [
        part._replace(labels=labels, codes=scipy.sparse.csr_array(codes), owners=owners)
        for part, owners in ((test, test.owners - OWNERS), (test, test.owners))
    ]
    aligned = align(*told, ["first", "second"], resamples=100, shuffles=1)
    for one in (aligned.precision, aligned.coverage):
        assert (one.value, one.low, one.high) == (1, 1, 1)
    alone = test._replace(owners=np.full_like(test.owners, OWNERS))
    assert align(train, alone, ["first", "second"], shuffles=1).precision.low is None


def test_shuffling_keeps_images_whole():
    owners = np.repeat([7, 3, 5], 4)
    labels = owners[:, None].copy()
    mixed = alignment.shuffled(labels, owners, np.random.default_rng(2))
    assert sorted(set(map(tuple, mixed.reshape(3, 4)))) == [(3,) * 4, (5,) * 4, (7,) * 4]
    assert not np.array_equal(mixed, labels)


def test_what_cannot_be_scored_is_refused():
    train, test = planted(0, 0), planted(1, OWNERS)
    with pytest.raises(UsageError, match="40 images or documents are held out and trained on"):
        align(train, train, ["first", "second"])
    few = train._replace(labels=np.zeros_like(train.labels))
    with pytest.raises(UsageError, match="none of 2 concepts has 20 positions in either split"):
        align(few, test, ["first", "second"])
