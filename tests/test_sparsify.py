"""Every sparsifier against examples worked by hand (the Mutual/Feature Choice example: Ayonrinde
2024's constraints)."""

import re

import pytest
import torch

from saelab import kernels, sparsify
from saelab.sparsify import Choice, Threshold

# pre-activations of three tokens over four features
PRE = torch.tensor([[9.0, 1.0, 0.5, 0.2], [8.0, 7.0, 6.0, 0.1], [0.4, 0.3, 2.0, 0.05]])


def kept(pre: torch.Tensor, form: sparsify.Sparsify, **options) -> set[tuple[int, int]]:
    """The pairs chosen when the encoder is the identity."""
    with kernels.backend("reference"):
        code = kernels.choose(
            pre, torch.eye(pre.shape[1]), torch.zeros(pre.shape[1]), form, **options
        )
    return {
        (t, f)
        for t, f, v in zip(
            code.tokens.tolist(), code.features.tolist(), code.values.tolist(), strict=True
        )
        if v
    }


def test_topk_takes_the_best_of_each_token():
    assert kept(PRE, Choice(1)) == {(0, 0), (1, 0), (2, 2)}


def test_mutual_choice_takes_the_best_of_the_batch_and_may_leave_a_token_empty():
    assert kept(PRE, Choice(1, "batch")) == {(0, 0), (1, 0), (1, 1)}


def test_feature_choice_takes_the_best_of_each_feature():
    budget = torch.tensor([1, 1, 1, 1])
    assert kept(PRE, Choice(1, "feature"), budget=budget) == {(0, 0), (1, 1), (1, 2), (0, 3)}
    assert kept(PRE, Choice(1, "feature"), budget=torch.tensor([2, 0, 0, 1])) == {
        (0, 0),
        (1, 0),
        (0, 3),
    }


def test_abstopk_keeps_the_sign():
    pre = torch.tensor([[3.0, -5.0, 2.0, -1.0]])
    assert kept(pre, Choice(2, signed=True)) == {(0, 0), (0, 1)}
    assert kept(pre, Choice(2)) == {(0, 0), (0, 2)}


def test_abstopk_is_topk_of_twice_the_width():
    generator = torch.Generator().manual_seed(0)
    x, W = torch.randn(20, 6, generator=generator), torch.randn(9, 6, generator=generator)
    with kernels.backend("reference"):
        signed = kernels.choose(x, W, torch.zeros(9), Choice(4, signed=True)).to_dense()
        double = kernels.choose(x, torch.cat([W, -W]), torch.zeros(18), Choice(4)).to_dense()
    both = double[:, :9] - double[:, 9:]
    assert torch.equal(signed != 0, both != 0) and not torch.equal(signed > 0, both != 0)
    torch.testing.assert_close(signed, both)


def test_a_gradient_changes_who_wins_and_never_the_value():
    pre, effect = torch.tensor([[3.0, 2.0, 1.0]]), torch.tensor([[0.0, 1.0, 5.0]])
    options = {"grad": effect, "W_dec": torch.eye(3)}
    with kernels.backend("reference"):
        code = kernels.choose(pre, torch.eye(3), torch.zeros(3), Choice(1, beta=1.0), **options)
        mirrored = kernels.choose(
            pre, torch.eye(3), torch.zeros(3), Choice(1, beta=1.0), grad=-effect, W_dec=torch.eye(3)
        )
    assert (code.features.tolist(), code.values.tolist()) == ([2], [1.0])
    assert mirrored.features.tolist() == [2]
    assert kept(pre, Choice(1, beta=0.0), **options) == {(0, 0)}


def test_a_threshold_reports_its_window_with_value_zero():
    with kernels.backend("reference"):
        code = kernels.choose(
            PRE, torch.eye(4), torch.zeros(4), Threshold(level=0.45, bandwidth=0.2)
        )
    assert code.features.tolist() == [0, 1, 2, 0, 1, 2, 0, 2]
    assert code.values.tolist() == [9.0, 1.0, 0.5, 8.0, 7.0, 6.0, 0.0, 2.0]


def test_ties_go_to_the_lowest_feature():
    assert kept(torch.ones(2, 5), Choice(2)) == {(0, 0), (0, 1), (1, 0), (1, 1)}
    assert kept(torch.ones(2, 5), Choice(3, "batch")) == {(0, f) for f in range(5)} | {(1, 0)}


def test_a_token_budget_is_filled_up_with_silent_pairs():
    with kernels.backend("reference"):
        code = kernels.choose(-PRE, torch.eye(4), torch.zeros(4), Choice(2))
    assert code.starts.tolist() == [0, 2, 4, 6]
    assert code.features.tolist() == [0, 1] * 3
    assert not code.values.any()


def test_every_score_goes_with_every_budget():
    assert sparsify.named("signed-gradient-feature-choice", 8) == Choice(
        8, "feature", signed=True, beta=1.0
    )
    assert (
        sparsify.named("signed-topk", 8) == sparsify.named("abstopk", 8) == Choice(8, signed=True)
    )
    assert sparsify.named("gradient-topk", 8) == sparsify.named("g-sae", 8) == Choice(8, beta=1.0)
    forms = {sparsify.named(name, 8) for name in sparsify.TABLE}
    choices = {
        Choice(8, over, signed, beta)
        for over in ("token", "batch", "feature")
        for signed in (0, 1)
        for beta in (0, 1)
    }
    assert choices < forms


@pytest.mark.parametrize("name", sparsify.TABLE)
def test_every_named_sparsifier_survives_yaml_and_has_an_inference_form(name):
    form = sparsify.named(name, 8)
    assert sparsify.from_dict(sparsify.to_dict(form)) == form
    inference = sparsify.inference_form(form)
    assert getattr(inference, "beta", 0) == 0 and getattr(inference, "over", "token") == "token"


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: sparsify.named("top-k", 3), "topk, abstopk"),
        (lambda: Choice(0), "k=0"),
        (lambda: Choice(3, over="row"), "'row'"),  # type: ignore[arg-type]
        (lambda: Choice(3, beta=-1), "beta=-1"),
        (lambda: Threshold(bandwidth=-1), "bandwidth=-1"),
        (lambda: kept(PRE, Choice(5)), "k=5 is more than n_features=4"),
        (lambda: kept(PRE, Choice(1, beta=1.0)), "needs the gradient"),
        (
            lambda: kept(PRE, Choice(1, "feature"), budget=torch.tensor([4, 0, 0, 0])),
            "budget of 4 pairs is more than the 3",
        ),
        (
            lambda: kept(PRE[:, :3], Choice(1)).union(
                kernels.choose(PRE, torch.eye(3), torch.zeros(3), Choice(1))
            ),
            "[3, 4]",
        ),
    ],
)
def test_wrong_values_are_refused_with_their_numbers(make, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        make()


def test_non_finite_input_is_counted_and_located():
    bad = PRE.clone()
    bad[1, 2] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"1 of 12 entries of x are not finite, first at \[1, 2\]"
    ):
        kept(bad, Choice(1))
