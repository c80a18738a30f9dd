"""Metrics by hand, their intervals, and the invariances that broken formulas lack."""

import numpy as np
import pytest

from saelab.evaluation import metrics
from saelab.statistics import bootstrap


def row(x: np.ndarray, x_hat: np.ndarray, **columns: float) -> np.ndarray:
    """The sums of one document with tokens x [n, D] and reconstructions x_hat."""
    sums = np.zeros(metrics.N_COLUMNS + x.shape[1])
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x_hat, axis=1)
    cosines = np.divide((x * x_hat).sum(1), norms, out=np.zeros(len(x)), where=norms > 0)
    values = {
        "tokens": len(x),
        "error": ((x - x_hat) ** 2).sum(),
        "square": (x**2).sum(),
        "cosine": cosines.sum(),
        **columns,
    }
    for name, value in values.items():
        sums[metrics.COLUMNS.index(name)] = value
    sums[metrics.N_COLUMNS :] = x.sum(0)
    return sums


X = np.array(
    [[1.0, 0.0], [3.0, 0.0], [2.0, 2.0], [2.0, -2.0]]
)  # mean (2, 0), spread 1 + 1 + 4 + 4 = 10


def test_fvu_by_hand():
    x_hat = X + np.array([[1.0, 0], [0, 0], [0, 0], [0, 2.0]])
    assert metrics.fvu(row(X, x_hat)) == pytest.approx(5 / 10)
    assert metrics.fvu(row(X, np.tile(X.mean(0), (4, 1)))) == pytest.approx(1.0)
    assert metrics.fvu(row(X, X)) == 0


def test_fvu_uses_the_mean_of_the_whole_set_and_not_of_each_document():
    whole = row(X, X * 0.5)
    parts = row(X[:2], X[:2] * 0.5) + row(X[2:], X[2:] * 0.5)
    assert metrics.fvu(whole) == pytest.approx(metrics.fvu(parts))
    each = (metrics.fvu(row(X[:2], X[:2] * 0.5)) + metrics.fvu(row(X[2:], X[2:] * 0.5))) / 2
    assert metrics.fvu(whole) != pytest.approx(each)


def test_fvu_and_cosine_do_not_depend_on_the_scale():
    x_hat = X * 0.7 + 0.1
    for factor in (1e-3, 1e3):
        assert metrics.fvu(row(factor * X, factor * x_hat)) == pytest.approx(
            metrics.fvu(row(X, x_hat))
        )
        assert metrics.cosine(row(factor * X, factor * x_hat)) == pytest.approx(
            metrics.cosine(row(X, x_hat))
        )


def test_ce_recovered_is_one_for_the_clean_and_zero_for_the_ablated_model():
    def recovered(spliced: float, ablation: str = "zero") -> float:
        sums = row(X, X, predictions=2, clean=4.0, spliced=spliced, zero=12.0, mean=8.0)
        return float(metrics.ce_recovered(sums, ablation))

    assert (recovered(4.0), recovered(12.0), recovered(6.0)) == (1.0, 0.0, 0.75)
    assert recovered(6.0, "mean") == 0.5


def test_means_by_hand():
    sums = row(X, -X, l0=12, kl=3.0, predictions=2, clean=5.0)
    assert (metrics.l0(sums), metrics.kl(sums), metrics.cosine(sums)) == (3.0, 1.5, -1.0)
    assert metrics.cross_entropy(sums, "clean") == 2.5


def test_dead_and_dense_by_hand():
    fired = np.array([0, 1, 10, 11, 0])
    assert metrics.dead_fraction(fired) == 0.4
    assert metrics.dense_fraction(fired, 100) == 0.2  # exactly 10% is not dense


def test_an_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(200):
        sums = np.stack([np.ones(60), rng.normal(3.0, 1.0, 60)], axis=1)
        _, low, high = bootstrap.interval(
            sums, lambda s: s[..., 1] / s[..., 0], bootstrap.weights(60, trial, 400)
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
    _, low, high = bootstrap.interval(by_document, mean, bootstrap.weights(40, 0))
    _, low_t, high_t = bootstrap.interval(by_token, mean, bootstrap.weights(2000, 0))
    assert high - low > 4 * (high_t - low_t)


def test_a_recentred_interval_is_as_wide_as_the_resamples_and_contains_its_value():
    resampled = np.linspace(0.31, 0.35, 401)
    value, low, high = bootstrap.recentred_interval(0.10, resampled)
    assert (value, low, high) == pytest.approx((0.10, 0.081, 0.119))
    assert bootstrap.recentred_interval(0.005, resampled)[1] == 0
