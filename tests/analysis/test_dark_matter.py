"""The decomposition against planted truth, its controls, and scores worked by hand."""

import numpy as np
import pytest
import torch

from saelab.analysis.dark_matter import decomposition as dark
from saelab.analysis.dark_matter import laws, linear
from saelab.errors import UsageError

D, FITTED, SCORED = 32, 32 * 60, 40_000
LEVELS = (0.0, 0.25, 0.5, 1.0, 2.0)


def planted(
    rank: int, dense: float, introduced: float, n: int, seed: int
) -> tuple[torch.Tensor, ...]:
    """x' of `rank` dimensions, x = x' + delta and x_hat = x' + eta, isotropic noise of these
    levels."""
    mix = (
        torch.randn(rank, D, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        / rank**0.5
    )
    generator = torch.Generator().manual_seed(seed)
    signal = torch.randn(n, rank, generator=generator, dtype=torch.float64) @ mix
    delta, eta = (
        torch.randn(n, D, generator=generator, dtype=torch.float64) * level
        for level in (dense, introduced)
    )
    return (
        signal,
        signal + delta,
        signal + eta,
        mix.T @ mix + dense**2 * torch.eye(D, dtype=torch.float64),
    )


def energies(found: dark.Decomposition) -> tuple[float, float]:
    """Mean squared lengths of the linear and the nonlinear part."""
    return float(found.linear.square().sum(1).mean()), float(found.nonlinear.square().sum(1).mean())


@pytest.mark.parametrize("rank", [D, D // 4])
def test_the_planted_energies_come_back_on_the_whole_grid(rank: int):
    for i, dense in enumerate(LEVELS):
        for j, introduced in enumerate(LEVELS[i == 0 :], start=int(i == 0)):
            _, x, x_hat, covariance = planted(
                rank, dense, introduced, FITTED, seed=1 + 2 * (5 * i + j)
            )
            map = dark.fit(x, x_hat)
            p = rank if dense == 0 else D
            assert map.error.rank == p
            captured = dense**4 * float(torch.linalg.inv(covariance).trace()) if dense else 0.0
            missed = D * (dense**2 + introduced**2) - captured
            signal, x, x_hat, _ = planted(rank, dense, introduced, SCORED, seed=2 + 2 * (5 * i + j))
            found = dark.decompose(x, x_hat, map, truth=signal)
            expected = captured + missed * p / FITTED, missed * (1 + p / FITTED)
            assert np.allclose(
                energies(found), expected, rtol=0, atol=0.01 * (captured + missed)
            ), (rank, dense, introduced)
            assert found.introduced is not None
            size = float(found.introduced.square().sum(1).mean())
            assert size == pytest.approx(D * introduced**2, rel=0.01)


def test_nonlinear_error_is_flat_in_dense_noise_only_for_a_signal_of_low_rank():
    def nonlinear(rank: int, dense: float) -> float:
        _, x, x_hat, _ = planted(rank, dense, 1.0, FITTED, seed=3)
        _, y, y_hat, _ = planted(rank, dense, 1.0, SCORED, seed=4)
        return energies(dark.decompose(y, y_hat, dark.fit(x, x_hat)))[1]

    assert nonlinear(D, 1.0) > 1.3 * nonlinear(D, 0.0)
    assert nonlinear(2, 1.0) < 1.1 * nonlinear(2, 0.0)


def test_many_tokens_are_worked_on_in_pieces_and_none_is_left_out(monkeypatch):
    _, x, x_hat, _ = planted(D, 1.0, 1.0, 2500, seed=5)
    whole, plain = dark.decompose(x, x_hat, dark.fit(x, x_hat)), linear.fit(x, x_hat)
    sizes, columns = [], dark.columns
    monkeypatch.setattr(dark, "columns", lambda x, *rest: sizes.append(len(x)) or columns(x, *rest))
    monkeypatch.setattr(linear, "PIECE", 1000)
    pieces = dark.decompose(x, x_hat, dark.fit(x, x_hat))
    assert sizes == [1000, 1000, 500]
    assert pieces.r2 == pytest.approx(whole.r2, abs=1e-9) and pieces.norm_r2 == pytest.approx(
        whole.norm_r2, abs=1e-9
    )
    torch.testing.assert_close(pieces.nonlinear, whole.nonlinear)
    again = linear.fit(x, x_hat)
    assert again.n_tokens == plain.n_tokens == 2500
    torch.testing.assert_close(again.weight, plain.weight)


def test_the_parts_sum_to_the_whole_and_are_orthogonal_where_they_were_fitted():
    x = torch.randn(3000, 24, generator=torch.Generator().manual_seed(0)) + 3
    x_hat = (x.relu() - 0.3) * 0.9
    found = dark.decompose(x, x_hat, dark.fit(x, x_hat))
    torch.testing.assert_close(x_hat + found.linear + found.nonlinear, x, rtol=0, atol=1e-5)
    assert found.fvu == pytest.approx(found.fvu_linear + found.fvu_nonlinear, rel=1e-5)
    assert float((found.nonlinear.double().T @ x.double()).abs().max()) < 1e-2
    other = torch.randn(3000, 24, generator=torch.Generator().manual_seed(1))
    elsewhere = dark.decompose(other, other.relu(), dark.fit(x, x_hat))
    assert abs(elsewhere.fvu - elsewhere.fvu_linear - elsewhere.fvu_nonlinear) > 1e-3


def test_dead_and_shrunk_saes_score_one_and_errors_of_other_tokens_the_null():
    generator = torch.Generator().manual_seed(0)
    x, y = (
        torch.randn(5000, 32, generator=generator) @ torch.randn(32, 32, generator=generator) + 1
        for _ in range(2)
    )
    for broken in (lambda t: torch.zeros_like(t) + 0.5, lambda t: 0.8 * t):
        assert dark.decompose(y, broken(y), dark.fit(x, broken(x))).r2 == pytest.approx(
            1.0, abs=1e-6
        )
    scores = []
    for _ in range(20):
        x, y, e, f = (torch.randn(1000, 32, generator=generator) for _ in range(4))
        found = dark.decompose(y, y - f, dark.fit(x, x - e))
        scores.append(found.r2)
        assert found.r2_null == -32 / (1000 - 32 - 1)
    spread = float(np.std(scores) / 20**0.5)
    assert abs(np.mean(scores) + 32 / 967) < 3 * spread and spread < 0.002
    permuted = x.relu()[torch.randperm(1000, generator=generator)]
    assert abs(dark.decompose(y, y - y.relu(), dark.fit(x, x - permuted)).r2 + 32 / 967) < 0.05


def test_scoring_on_the_fitting_tokens_is_seen_to_flatter():
    x, e = (torch.randn(200, 64, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    assert dark.decompose(x, x - e, dark.fit(x, x - e)).r2 > 0.25


def test_a_constant_offset_needs_the_intercept():
    x, y = (torch.randn(4000, 8, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    e, f = (5 + torch.randn(4000, 8, generator=torch.Generator().manual_seed(s)) for s in (2, 3))
    assert abs(dark.decompose(y, y - f, dark.fit(x, x - e)).r2) < 0.01
    assert dark.decompose(y, y - f, dark.fit(x, x - e, intercept=False)).r2 < -20


def test_pooled_and_mean_r2_differ_by_a_noisy_dimension_and_a_constant_one_counts_as_nothing():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(5000, 4, generator=generator)
    e = torch.stack(
        [x[:, 0], x[:, 1], 100 * torch.randn(5000, generator=generator), torch.full((5000,), 2.0)],
        1,
    )
    found = dark.decompose(x, x - e, dark.fit(x, x - e))
    torch.testing.assert_close(
        found.r2_dimensions,
        torch.tensor([1.0, 1.0, 0.0, 0.0], dtype=torch.float64),
        atol=0.01,
        rtol=0,
    )
    assert found.r2 < 0.01
    clean = dark.decompose(x, x, dark.fit(x, x))
    assert clean.r2 == clean.norm_r2 == clean.fvu == 0


def test_scores_by_hand():
    # Errors (1, 0), (-1, 0), (0, 2), (0, -2) of x = (2, 0), (-2, 0), (0, 2), (0, -2); predicted:
    # half of x.
    x = torch.tensor([[2.0, 0], [-2, 0], [0, 2], [0, -2]])
    x_hat = x - torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]])
    half = linear.Linear(
        torch.eye(2, dtype=torch.float64) / 2, torch.zeros(2, dtype=torch.float64), 10, 2
    )
    norm = linear.Linear(
        torch.zeros(2, 1, dtype=torch.float64), torch.full((1,), 2.0, dtype=torch.float64), 10, 2
    )
    found = dark.decompose(x, x_hat, dark.Map(half, norm))
    assert found.r2 == pytest.approx(1 - 2 / 10) and found.r2_null == -2 / 7
    assert found.r2_dimensions.tolist() == pytest.approx([1, 1 - 2 / 8])
    assert found.norm_r2 == pytest.approx(
        1 - (1 + 1 + 4 + 4) / 9
    )  # lengths 1, 1, 4, 4 around 2.5, predicted 2
    assert (found.fvu, found.fvu_linear, found.fvu_nonlinear) == pytest.approx(
        (10 / 16, 4 / 16, 2 / 16)
    )


def test_streamed_sums_equal_one_fit_in_float64_and_take_no_more_memory():
    x = torch.randn(5000, 16, generator=torch.Generator().manual_seed(0), dtype=torch.float64) + 10
    y = (
        torch.randn(5000, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
        + x[:, :3]
    )
    sums = linear.Sums(16, 3)
    for a, b in zip(x.split(700), y.split(700), strict=True):
        sums.add(a, b)
    found = linear.solve(sums)
    design = torch.cat([x, torch.ones(5000, 1, dtype=torch.float64)], 1)
    expected = torch.linalg.lstsq(design, y).solution
    torch.testing.assert_close(found.weight, expected[:16], atol=1e-8, rtol=0)
    torch.testing.assert_close(found.bias, expected[16], atol=1e-7, rtol=0)
    assert (
        sum(t.numel() for t in vars(sums).values() if isinstance(t, torch.Tensor))
        == 16 + 3 + 16 * 16 + 16 * 3
    )


def test_ridge_shrinks_as_the_closed_form_says_and_a_flat_direction_gets_no_weight():
    x = torch.randn(500, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    y = torch.randn(500, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = linear.fit(x, y, intercept=False, ridge=0.7)
    expected = torch.linalg.solve(x.T @ x / 500 + 0.7 * torch.eye(6), x.T @ y / 500)
    torch.testing.assert_close(found.weight, expected)
    assert not found.bias.any()
    doubled = torch.cat([x, x[:, :1], torch.ones(500, 1)], 1)
    assert linear.fit(doubled, y).rank == 6


def test_too_few_tokens_and_wrong_shapes_are_refused():
    x = torch.randn(60, 64)
    with pytest.raises(
        UsageError, match="60 tokens are too few to fit 64 regressors: at least 66 are needed"
    ):
        dark.fit(x, x)
    dark.fit(x, x * 0.5, ridge=0.1)
    with pytest.raises(UsageError, match=r"ridge=-1 is negative"):
        dark.fit(x, x, ridge=-1)
    with pytest.raises(UsageError, match=r"x has shape \[60, 64\], x_hat \[60, 32\]"):
        dark.decompose(x, x[:, :32], dark.fit(torch.randn(99, 64), torch.randn(99, 64)))
    for empty in (x[:0], x[0]):
        with pytest.raises(UsageError, match=r"no tokens|both must be"):
            dark.fit(empty, empty)


# --- documents and scaling ----------------------------------------------------------------------


def test_a_planted_power_law_comes_back_for_every_resample():
    sizes = np.array([256, 512, 1024, 2048, 4096])
    floors, exponents = np.array([0.03, 0.0]), np.array([0.4, 0.9])
    fvu = floors[:, None] + 0.2 * (sizes / 256) ** -exponents[:, None]
    law = laws.power_law(sizes, fvu)
    np.testing.assert_allclose(law.floor, floors, atol=1e-3)
    np.testing.assert_allclose(law.exponent, exponents, rtol=0.02)
    np.testing.assert_allclose(law.scale, 0.2, rtol=0.02)
    assert (law.missed < 1e-6).all()
    bands = laws.bands(law, np.full((2, 5), 0.02))
    np.testing.assert_allclose(bands["linear"], law.floor - 0.02)


def test_a_law_keeps_floor_and_scale_at_zero_or_above():
    rising = laws.power_law(np.array([1, 2, 4, 8]), np.array([0.1, 0.2, 0.3, 0.4]))
    assert rising.scale == 0 and rising.floor == pytest.approx(0.25)
    steep = laws.power_law(np.array([1, 2, 4, 8]), np.array([1.0, 0.4, 0.1, 0.0]))
    assert steep.floor == 0 and steep.scale > 0
    with pytest.raises(UsageError, match="needs four different sizes, there are 3"):
        laws.power_law(np.array([1, 2, 4, 4]), np.ones(4))


def test_error_norms_are_told_from_what_they_depend_on_and_from_nothing_else():
    generator = torch.Generator().manual_seed(0)
    norm, nonlinear, noise = (torch.rand(8000, generator=generator) for _ in range(3))
    owners = torch.arange(8000) // 200
    told = laws.norms_told(norm, nonlinear, norm + nonlinear + 1e-3 * noise, owners)
    assert told.r2.value == pytest.approx(0.5, abs=0.03) and told.added.value > 0.999
    assert told.r2.low < told.r2.value < told.r2.high
    other = laws.norms_told(norm, nonlinear, noise, owners)
    assert (
        abs(other.r2.value) < 0.01 and abs(other.added.value) < 0.01 and other.r2.null == -1 / 3998
    )
    with pytest.raises(UsageError, match="at least two"):
        laws.norms_told(norm, nonlinear, noise, torch.zeros(8000))
