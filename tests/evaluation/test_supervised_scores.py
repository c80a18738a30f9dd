"""Scores by hand, and what cannot be normalised."""

import numpy as np
import pytest
import torch

from saelab.errors import UsageError
from saelab.evaluation.supervised import scores
from saelab.statistics import bootstrap


def test_approximation_by_hand():
    assert scores.sufficiency(np.array([4.0, 1.0, 2.5, 0.0])) == pytest.approx(0.5)
    assert scores.necessity(np.array([4.0, 1.0, 0.0, 2.5])) == pytest.approx(0.5)
    assert scores.necessity(np.array([4.0, 1.0, 0.0, -0.5])) == pytest.approx(
        0.5
    )  # past mean ablation counts against it
    perfect, empty = np.array([4.0, 1.0, 4.0, 1.0]), np.array([4.0, 1.0, 1.0, 4.0])
    assert (scores.sufficiency(perfect), scores.necessity(perfect)) == (1, 1)
    assert (scores.sufficiency(empty), scores.necessity(empty)) == (0, 0)


def test_edits_by_hand():
    sums = np.array([10.0, 7.0, 4.0, 1.0, 2.5])
    assert (
        scores.edit_agreement(sums) == 0.7
        and scores.edit_success(sums) == 0.25
        and scores.edit_magnitude(sums) == 0.25
    )
    assert np.isnan(scores.edit_success(np.array([10.0, 10.0, 0.0, 0.0, 2.5])))


def test_a_metric_without_a_scale_is_refused_with_its_numbers():
    weights, noise = bootstrap.weights(50), np.random.default_rng(0).normal(size=50)
    scores.check_scale(3 + noise, noise, weights)
    with pytest.raises(
        UsageError, match=r"cannot be normalised: .* on clean prompts, .* with mean"
    ):
        scores.check_scale(noise, noise[::-1], weights)
    with pytest.raises(UsageError, match=r"cannot be normalised: 10 on clean prompts, 9\.9"):
        scores.check_scale(np.full(50, 10.0), np.full(50, 9.9), weights)


def test_best_latents_by_hand():
    on = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 1]]).bool()
    truth = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]]).bool()
    found = scores.best_latents(on, truth)
    assert found.latent.tolist() == [0, 2]  # F1 of the first: 4/6, 2/3, 0; of the second: 4/6, 0, 1
    torch.testing.assert_close(found.f1, torch.tensor([2 / 3, 1.0]))


def test_f1_by_hand_and_its_ends():
    truth = torch.tensor([[1, 0], [1, 0], [0, 1], [0, 1]]).bool()
    weights = bootstrap.weights(4, resamples=50)
    assert scores.mean_f1(truth, truth, weights)[0] == 1
    assert scores.mean_f1(torch.zeros_like(truth), truth, weights)[0] == 0
    guess = torch.tensor([[1, 0], [0, 0], [0, 1], [1, 1]]).bool()
    assert scores.mean_f1(guess, truth, weights)[0] == pytest.approx((2 / 4 + 1) / 2)
    never = torch.cat(
        [truth, torch.zeros(4, 1).bool()], 1
    )  # a value that does not occur is not averaged over
    assert scores.mean_f1(never, never, weights)[0] == 1


def test_the_f1_of_shuffled_latents_is_low():
    draw = torch.Generator().manual_seed(0)
    truth = torch.nn.functional.one_hot(torch.randint(10, (500,), generator=draw), 10).bool()
    guess = truth[torch.randperm(500, generator=draw)]
    value, low, high, _ = scores.mean_f1(guess, truth, bootstrap.weights(500, resamples=200))
    assert low <= value <= high < 0.25
