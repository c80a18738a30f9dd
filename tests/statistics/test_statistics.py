"""Intervals that cover what they say, differences that are paired, and sums that belong to their
documents."""

import json
import math

import numpy as np
import pytest
import scipy.sparse
import torch

from saelab.statistics import (
    DocumentSums,
    Estimate,
    difference,
    over_documents,
    over_seeds,
    recentred,
    share_over_documents,
    spread,
    weights,
)
from saelab.statistics.sums import of_tokens
from tests.schemas import check


def mean(sums: dict) -> np.ndarray:
    """Of x over the tokens."""
    return sums["x"] / sums["n"]


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        sums = np.stack([np.ones(60), rng.normal(3.0, 1.0, 60)], axis=1)
        _, low, high, _ = over_documents(
            sums, lambda s: s[..., 1] / s[..., 0], weights(60, trial, 400)
        )
        covered += low <= 3.0 <= high
    assert 0.89 <= covered / 200 <= 0.99


def test_resampling_tokens_instead_of_documents_would_be_too_narrow():
    rng = np.random.default_rng(1)
    documents = rng.normal(0, 1, 40)
    tokens = (documents[:, None] + rng.normal(0, 0.1, (40, 50))).ravel()
    by_document = np.stack([np.full(40, 50.0), tokens.reshape(40, 50).sum(1)], axis=1)
    by_token = np.stack([np.ones(2000), tokens], axis=1)
    mean = lambda s: s[..., 1] / s[..., 0]  # noqa: E731
    _, low, high, _ = over_documents(by_document, mean, weights(40, 0))
    _, low_t, high_t, _ = over_documents(by_token, mean, weights(2000, 0))
    assert high - low > 4 * (high_t - low_t)


def test_a_recentred_interval_is_as_wide_as_the_resamples_and_contains_its_value():
    resampled = np.linspace(0.31, 0.35, 401)
    value, low, high, _ = recentred(0.10, resampled)
    assert (value, low, high) == pytest.approx((0.10, 0.081, 0.119))
    assert recentred(0.005, resampled).low == 0


def test_an_estimate_is_the_schemas_and_nothing_is_none():
    estimate = Estimate(0.5, float("nan"), 0.7)
    assert estimate.as_dict() == {"value": 0.5, "low": None, "high": 0.7, "null": None}
    check(json.loads(json.dumps(estimate.as_dict())), "estimate")
    assert Estimate.from_dict({"k": 3, "value": 1, "low": 0, "high": 2}) == (1, 0, 2, None)


def test_only_an_interval_beside_zero_says_that_there_is_a_difference():
    assert Estimate(0.2, 0.1, 0.3).excludes_zero and Estimate(-2, -3, -1).excludes_zero
    assert not Estimate(0.2, -0.1, 0.5).excludes_zero and not Estimate(0.2).excludes_zero
    assert Estimate(0.2, 0.1, 0.3).above(0.05) and not Estimate(0.2, 0.1, 0.3).above(0.1)
    assert Estimate(0.9, 0.7, 1.1, 0.5).cut(0, 1) == (0.9, 0.7, 1.0, 0.5)


def test_sums_by_name_give_what_a_table_gives():
    rng = np.random.default_rng(0)
    x_GD, n_G = rng.normal(2, 1, (30, 3)), rng.integers(1, 9, 30).astype(float)
    weights_RG = weights(30)
    by_name = over_documents({"x": x_GD, "n": n_G}, lambda s: s["x"].sum(-1) / s["n"], weights_RG)
    table = np.concatenate([x_GD, n_G[:, None]], 1)
    assert by_name == pytest.approx(
        over_documents(table, lambda s: s[..., :3].sum(-1) / s[..., 3], weights_RG)
    )


def test_a_paired_difference_is_seen_where_two_intervals_overlap():
    rng = np.random.default_rng(0)
    hard_G = rng.normal(0, 5, 50)
    n_G, weights_RG = np.ones(50), weights(50)
    mine = {"x": hard_G + 0.5 + rng.normal(0, 0.3, 50), "n": n_G}
    theirs = {"x": hard_G, "n": n_G}
    better = difference(mine, theirs, mean, weights_RG)
    assert better.excludes_zero and better.low < 0.5 < better.high and better.null == 0
    one, other = (over_documents(sums, mean, weights_RG) for sums in (mine, theirs))
    assert one.low < other.value < one.high  # what two separate intervals would have missed
    unpaired = {**theirs, "x": rng.permutation(hard_G)}
    assert not difference(mine, unpaired, mean, weights_RG).excludes_zero


def test_a_share_of_features_from_sparse_counts_is_that_from_dense_ones():
    counts_GF = np.random.default_rng(0).poisson(0.05, (40, 70))
    sparse, weights_RG = scipy.sparse.csr_array(counts_GF), weights(40, resamples=120)
    of = lambda sums: (sums["fired"] == 0).mean(-1)  # noqa: E731
    dense = share_over_documents({"fired": counts_GF}, of, weights_RG, 0.5)
    assert share_over_documents({"fired": sparse}, of, weights_RG, 0.5) == pytest.approx(dense)
    assert dense.value == (counts_GF.sum(0) == 0).mean() and dense.null == 0.5


def test_mean_and_spread_over_seeds_by_hand():
    values = [1.0, 2.0, 3.0]
    half = 4.302653 / 3**0.5  # t(0.975, 2) of the printed tables
    assert over_seeds(values) == (2.0, pytest.approx(2 - half), pytest.approx(2 + half), None)
    assert spread(values) == 1.0 and spread([1.0]) is None
    assert over_seeds(range(1, 6), null=3.0).null == 3.0


def test_two_seeds_have_a_spread_and_no_interval_and_a_missing_one_leaves_no_value():
    assert over_seeds([1.0, 2.0]) == (1.5, None, None, None)
    assert spread([1.0, 2.0]) == pytest.approx(0.5**0.5)
    assert over_seeds([1.0, math.nan, 2.0]) == (None, None, None, None)


def test_document_sums_gather_what_belongs_together():
    sums = DocumentSums()
    sums.add(torch.tensor([7, 3, 7]), {"x": torch.tensor([1.0, 2, 4]), "y": torch.eye(3)})
    sums.add(torch.tensor([3]), {"x": torch.tensor([10.0])})
    sums.add(torch.tensor([5]), {"losses": torch.tensor([6.0])})
    assert sums.documents == [3, 5, 7]
    table = sums.table()
    assert table["x"].tolist() == [12, 0, 5] and table["losses"].tolist() == [0, 6, 0]
    assert table["y"].tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 1]]
    assert sums.table([3, 4])["x"].tolist() == [12, 0]
    estimate = of_tokens(
        torch.arange(100), {"x": torch.randn(100) + 5}, lambda s: s["x"] / 100, null=0.0
    )
    assert estimate.low < estimate.value < estimate.high and estimate.null == 0


def test_one_document_has_no_interval_and_decides_nothing():
    alone, n = weights(1), np.array([2.0])
    one, other = {"x": np.array([3.0]), "n": n}, {"x": np.array([1.0]), "n": n}
    assert over_documents(one, mean, alone, null=0.5) == Estimate(1.5, None, None, 0.5)
    better = difference(one, other, mean, alone)
    assert better.value == 1.0 and not better.excludes_zero
    assert share_over_documents(one, mean, alone) == Estimate(1.5)
    # Two documents have one, and of two that agree it may well exclude 0.
    twice = [{name: part.repeat(2) for name, part in each.items()} for each in (one, other)]
    assert difference(*twice, mean, weights(2)).excludes_zero
