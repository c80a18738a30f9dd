"""Supervised codes: means and least squares agree where they must, differ where they must, and bad
designs are named."""

from itertools import product

import pytest
import torch

from saelab.errors import UsageError
from saelab.evaluation.supervised import dictionary


def fvu(acts: torch.Tensor, features: dictionary.Features) -> float:
    """Share of the variance that the reconstruction leaves."""
    return float(
        (acts - features.reconstruction()).square().sum() / (acts - acts.mean(0)).square().sum()
    )


def world(
    pairs: list[tuple[int, int]], noise: float = 0.01
) -> tuple[torch.Tensor, dictionary.Labels]:
    """Activations u_i + v_j + noise in 32 dimensions."""
    draw = torch.Generator().manual_seed(0)
    u, v = torch.randn(8, 32, generator=draw), torch.randn(8, 32, generator=draw)
    i, j = torch.tensor(pairs).unbind(1)
    labels = {"a": [str(k) for k in i.tolist()], "b": [str(k) for k in j.tolist()]}
    return u[i] + v[j] + noise * torch.randn(len(pairs), 32, generator=draw), labels


def test_codes_by_hand():
    acts = torch.tensor([[1.0, 0.0], [1.0, 2.0], [3.0, 0.0], [3.0, 2.0]])
    labels = {"left": ["x", "x", "y", "y"], "right": ["p", "q", "p", "q"]}
    for how in ("mean", "least-squares"):
        found = dictionary.fit(acts, labels, how)(acts, labels)
        assert found.bias.tolist() == [2.0, 1.0]
        expected = torch.tensor([[-1.0, 0.0], [1.0, 0.0], [0.0, -1.0], [0.0, 1.0]])
        torch.testing.assert_close(found.rows, expected, atol=1e-6, rtol=0)
        torch.testing.assert_close(found.reconstruction(), acts, atol=1e-6, rtol=0)


def test_on_a_balanced_design_both_codes_are_the_same():
    acts, labels = world(list(product(range(8), range(8))) * 2)
    mean, least = (
        dictionary.fit(acts, labels, how)(acts, labels) for how in ("mean", "least-squares")
    )
    torch.testing.assert_close(mean.rows, least.rows, atol=1e-5, rtol=1e-4)
    assert fvu(acts, least) < 1e-3


def test_on_a_correlated_design_means_count_twice_and_least_squares_do_not():
    draw = torch.Generator().manual_seed(1)
    first = torch.randint(8, (4000,), generator=draw)
    other = torch.randint(8, (4000,), generator=draw)
    second = torch.where(torch.rand(4000, generator=draw) < 0.7, first, other)
    acts, labels = world(list(zip(first.tolist(), second.tolist(), strict=True)))
    assert fvu(acts, dictionary.fit(acts, labels)(acts, labels)) < 1e-3
    assert 0.3 < fvu(acts, dictionary.fit(acts, labels, "mean")(acts, labels)) < 0.7


def test_least_squares_match_another_solver():
    acts, labels = world([(k % 7, k % 5) for k in range(300)], noise=1.0)
    design = torch.cat(
        [torch.ones(300, 1), dictionary.one_hot(labels, dictionary.values_of(labels))], 1
    ).double()
    expected = design @ torch.linalg.lstsq(design, acts.double(), driver="gelsd").solution
    torch.testing.assert_close(
        dictionary.fit(acts, labels)(acts, labels).reconstruction().double(),
        expected,
        atol=1e-4,
        rtol=1e-4,
    )


def test_a_value_never_seen_in_fitting_has_no_code():
    acts, labels = world(list(product(range(8), range(8))))
    found = dictionary.fit(acts, labels)(acts[:1], {"a": ["new"], "b": ["0"]})
    assert found.codes.sum() == 1


@pytest.mark.parametrize(
    ("labels", "named"),
    [
        ({"a": ["x"] * 6, "b": ["p", "q"] * 3}, "'a' is 'x' in all 6 prompts"),
        (
            {"a": ["x", "y"] * 4, "b": ["p", "q"] * 4, "c": ["m", "m", "n", "n"] * 2},
            "'a', 'b' are collinear",
        ),
        ({"a": ["x", "x", "y", "y"] * 2, "b": ["p", "q", "r", "s"] * 2}, "'a', 'b' are collinear"),
    ],
)
def test_bad_designs_are_named(labels: dictionary.Labels, named: str):
    with pytest.raises(UsageError, match=named):
        dictionary.check_design(labels)


def test_correlated_but_not_collinear_passes():
    dictionary.check_design(
        {"a": ["x", "x", "x", "y", "y", "y"], "b": ["p", "p", "q", "q", "q", "p"]}
    )
