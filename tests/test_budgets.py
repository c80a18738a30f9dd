"""Zipf's law fitted to densities made by it, and shares in whole numbers that add up."""

import pytest
import torch

from saelab import budgets


@pytest.mark.parametrize(("exponent", "shift"), [(1.0, 0.0), (0.8, 4.0), (1.5, 64.0)])
def test_a_fit_recovers_the_law_that_made_the_densities(exponent, shift):
    ranks = torch.arange(1, 2001, dtype=torch.float64)
    order = torch.randperm(2000, generator=torch.Generator().manual_seed(0))
    density = (0.3 * (ranks + shift) ** -exponent)[order]
    law = budgets.fit_zipf(density)
    assert law == pytest.approx((exponent, shift, 0.3, 1.0), rel=1e-6)
    torch.testing.assert_close(law.expected(density), density)


def test_densities_without_a_law_fit_badly_and_too_few_give_the_default():
    flat = torch.where(torch.arange(2000) < 1000, 0.1, 0.0001)
    assert budgets.fit_zipf(flat).r2 < 0.9
    assert budgets.fit_zipf(torch.tensor([0.1, 0.0, 0.0])) == budgets.Zipf()


def test_expected_densities_follow_the_rank_with_ties_by_number():
    law = budgets.Zipf(1.0, 0.0, 0.6)
    expected = law.expected(torch.tensor([0.0, 0.5, 0.2, 0.5]))
    torch.testing.assert_close(expected, torch.tensor([0.15, 0.6, 0.2, 0.3]))


def test_shares_by_hand():
    # 1 each, 12 - 3 = 9 more as 6:2:1
    assert budgets.whole(torch.tensor([6.0, 2.0, 1.0]), 12, 12).tolist() == [7, 3, 2]
    # the first takes 5 at most; the other 7: 1 each, 5 more as 2:1
    assert budgets.whole(torch.tensor([6.0, 2.0, 1.0]), 12, 5).tolist() == [5, 4, 3]
    assert budgets.whole(torch.tensor([1.0, 0.0, 0.0]), 12, 10).tolist() == [10, 1, 1]


@pytest.mark.parametrize("seed", range(5))
def test_shares_add_up_within_their_bounds(seed):
    g = torch.Generator().manual_seed(seed)
    n, most = 300, 64
    share = torch.rand(n, generator=g) ** 8
    for total in (n, n + 1, 1000, 12345, n * most):
        m = budgets.whole(share, total, most)
        assert int(m.sum()) == total and int(m.min()) >= 1 and int(m.max()) <= most
        assert m[share.argsort()].diff().min() >= -1  # a larger share gets no less, rounding aside


def test_budgets_that_cannot_be_shared_are_refused():
    with pytest.raises(ValueError, match="2 pairs cannot be shared by 3 features with 1 to 5 each"):
        budgets.whole(torch.ones(3), 2, 5)
