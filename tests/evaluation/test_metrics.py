"""Metrics by hand, and the invariances that broken formulas lack."""

import numpy as np
import pytest
import torch

from saelab.evaluation import metrics


def row(x: np.ndarray, x_hat: np.ndarray, **columns: float) -> dict:
    """The sums of one document with tokens x [n, D] and reconstructions x_hat."""
    norms = np.linalg.norm(x, axis=1) * np.linalg.norm(x_hat, axis=1)
    cosines = np.divide((x * x_hat).sum(1), norms, out=np.zeros(len(x)), where=norms > 0)
    return {
        "tokens": len(x),
        "error": ((x - x_hat) ** 2).sum(),
        "square": (x**2).sum(),
        "cosine": cosines.sum(),
        "x": x.sum(0),
        **columns,
    }


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
    first, second = row(X[:2], X[:2] * 0.5), row(X[2:], X[2:] * 0.5)
    parts = {name: first[name] + second[name] for name in first}
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
    sums = {"fired": fired, "tokens": np.array(100)}
    assert metrics.silent_fraction(sums) == 0.4
    assert metrics.dense_fraction(sums) == 0.2  # exactly 10% is not dense


def test_what_activations_that_do_not_vary_leave_undefined_is_no_number_and_no_warning():
    x_ND = torch.full((1000, 3), 7.1)  # a sum of squares that float64 cannot hold exactly
    sums = {
        "tokens": np.array(1000.0),
        "error": np.array(2.0),
        "square": x_ND.double().square().sum().numpy(),
        "x": x_ND.double().sum(0).numpy(),
        **{name: np.array(3.0) for name in ("zero", "spliced", "clean")},
    }
    assert np.isnan(metrics.fvu(sums)) and np.isnan(metrics.ce_recovered(sums))
    x_ND[0, 0] += 0.1
    sums |= {"square": x_ND.double().square().sum().numpy(), "x": x_ND.double().sum(0).numpy()}
    assert metrics.fvu(sums) == pytest.approx(2 / 0.00999, rel=1e-3)
