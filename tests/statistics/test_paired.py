"""Paired differences: their coverage, what they find, and what unpairs them."""

import numpy as np
import pytest
from scipy import stats

from saelab.statistics import FEW, Estimate, between_seeds, least, paired, verdict

N_DRAWS = 400


def ratio(sums):
    return sums["error"] / sums["spread"]


def draw(rng, n_documents, planted=0.0, noise=0.05):
    """Two SAEs' sums on documents of very different sizes and difficulty, equal but for noise and
    a planted share of the error."""
    size_G = 1000 * rng.lognormal(0, 1, n_documents)
    hard_G = size_G * rng.uniform(0.05, 0.15, n_documents)
    spread_G = size_G * rng.uniform(0.8, 1.2, n_documents)
    one, other = (hard_G + rng.normal(size=n_documents) * noise * size_G**0.5 for _ in range(2))
    return {"error": one, "spread": spread_G}, {"error": other * (1 + planted), "spread": spread_G}


@pytest.mark.parametrize("n_documents", [5, FEW - 1, FEW])
def test_equal_saes_are_not_told_apart_in_95_of_100_draws(n_documents):
    rng = np.random.default_rng(0)
    pairs = [draw(rng, n_documents) for _ in range(N_DRAWS)]
    apart = [
        paired(b, a, ratio, n_documents, seed).excludes_zero for seed, (a, b) in enumerate(pairs)
    ]
    assert 0.92 <= 1 - np.mean(apart) <= 0.98


@pytest.mark.parametrize("n_documents", [8, 50])
def test_a_planted_hundredth_is_found_and_shuffled_pairs_lose_it(n_documents):
    rng = np.random.default_rng(1)
    one, other = draw(rng, n_documents, planted=0.01, noise=0.005)
    change = paired(other, one, ratio, n_documents)
    assert verdict(change, "lower") == "worse" and verdict(change, "higher") == "better"
    assert change.value == pytest.approx(0.01 * float(ratio(one_sum(one))), rel=0.2)
    order = rng.permutation(n_documents)
    shuffled = {name: column[order] for name, column in other.items()}
    lost = paired(shuffled, one, ratio, n_documents)
    assert lost.value == pytest.approx(change.value)
    assert verdict(lost, "lower") == "not told apart" and least(lost) > 5 * least(change)


def one_sum(sums):
    return {name: column.sum() for name, column in sums.items()}


def over_seeds_of_equals(rng, between, n_draws=200, n_documents=40):
    """Share of draws in which two configurations that differ by nothing but three seeds each are
    not told apart: every seed has its own luck, and its own noise on the documents."""
    told = []
    for _ in range(n_draws):
        luck = rng.normal(1, 0.02, size=6)
        fvus = [float(ratio(one_sum(draw(rng, n_documents, planted=x - 1)[1]))) for x in luck]
        sides = [dict(enumerate(fvus[:3])), dict(enumerate(fvus[3:]))]
        told.append(verdict(between(*sides), "lower"))
    return told.count("not told apart") / n_draws


def test_equal_configurations_of_three_seeds_are_not_told_apart_in_95_of_100_draws():
    def matched(one, other):
        return between_seeds(one, other)[0]

    def apart(one, other):
        return between_seeds(one, {seed + 10: value for seed, value in other.items()})[0]

    def normal(one, other):
        change = np.array([other[seed] - one[seed] for seed in one])
        half = 1.96 * change.std(ddof=1) / len(change) ** 0.5
        return Estimate(change.mean(), change.mean() - half, change.mean() + half, 0.0)

    assert 0.92 <= over_seeds_of_equals(np.random.default_rng(5), matched) <= 0.98
    assert 0.92 <= over_seeds_of_equals(np.random.default_rng(6), apart) <= 1
    assert over_seeds_of_equals(np.random.default_rng(7), normal) < 0.92


def test_fewer_than_three_seeds_have_no_interval():
    change, pairing = between_seeds({0: 1.0, 1: 2.0}, {0: 2.0, 1: 3.0, 2: 9.0})
    assert pairing == "unknown" and change.low is None and verdict(change, "lower") is not None
    change, pairing = between_seeds({0: 1.0, 1: 1.1, 2: 0.9}, {5: 2.0, 6: 2.1, 7: 2.2})
    assert pairing == "apart" and change.above(0.5)


def test_with_few_documents_of_one_size_it_is_the_paired_t_test():
    rng = np.random.default_rng(2)
    one_G, other_G = rng.normal(size=(2, 6))
    ones = np.ones(6)
    change = paired({"error": other_G, "spread": ones}, {"error": one_G, "spread": ones}, ratio, 6)
    known = stats.ttest_rel(other_G, one_G).confidence_interval(0.95)
    assert (change.low, change.high) == pytest.approx((known.low, known.high))


def test_one_document_gives_no_interval_and_no_verdict():
    one = {"error": np.array([1.0]), "spread": np.array([10.0])}
    other = {"error": np.array([9.0]), "spread": np.array([10.0])}
    change = paired(other, one, ratio, 1)
    assert change == Estimate(0.8, None, None, 0.0)
    assert verdict(change, "lower") == "not told apart" and least(change) is None


def test_a_metric_of_which_neither_side_is_better_has_no_verdict():
    assert verdict(Estimate(1.0, 0.5, 1.5), "none") is None


def test_shares_of_features_are_moved_to_their_value():
    rng = np.random.default_rng(3)
    fired_GF = (rng.random((40, 200)) < 0.02).astype(float)
    fewer_GF = fired_GF * (np.arange(200) >= 40)

    def silent(sums):
        return (sums["fired"] == 0).mean(-1)

    change = paired({"fired": fewer_GF}, {"fired": fired_GF}, silent, 40, of_features=True)
    assert change.low < change.value < change.high
    assert verdict(change, "lower") == "worse"
