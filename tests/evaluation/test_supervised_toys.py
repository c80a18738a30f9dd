"""Small forms of the occlusion and over-splitting toys."""

from typing import Any

import pytest
import torch

from saelab.evaluation.supervised import toys

SMALL: dict[str, Any] = {"n_values": 12, "n_latents": 96, "width": 32, "steps": 400}


def test_the_penalised_loss_by_hand():
    sae = toys.Penalised(torch.eye(2), torch.tensor([-1.0, 0.0]), torch.eye(2), torch.zeros(2))
    x = torch.tensor([[3.0, -1.0]])
    assert sae.code(x).tolist() == [[2.0, 0.0]]
    assert float(sae.loss(x, 0.5)) == pytest.approx(1 + 1 + 0.5 * 2)


def test_training_lowers_the_loss_and_keeps_unit_rows():
    draw = torch.Generator().manual_seed(0)
    x, start = (
        torch.randn(500, 8, generator=draw),
        torch.nn.functional.normalize(torch.randn(16, 8, generator=draw), dim=1),
    )
    losses = [
        float(toys.train_penalised(x, start, 0.1, steps=steps).loss(x, 0.1)) for steps in (1, 100)
    ]
    assert losses[1] < losses[0]
    torch.testing.assert_close(
        toys.train_penalised(x, start, 0.1, steps=5).W.norm(dim=1), torch.ones(16)
    )


def test_the_weaker_attribute_is_occluded_until_the_stronger_one_shrinks():
    beside, shrunk = (toys.occlusion(scale, **SMALL) for scale in (1.0, 0.25))
    assert beside.high > beside.low
    assert shrunk.low > beside.low


@pytest.mark.parametrize("penalty", [1, 3])
def test_latents_that_name_nothing_have_the_lower_loss(penalty: float):
    found = toys.over_splitting(penalty, n=1000, steps=200)
    assert (
        found.random < found.two < 104 + 1
    )  # both below the loss of reconstructing nothing, E||x||^2
    few = toys.over_splitting(penalty, n_latents=2, n=1000, steps=20)
    assert few.random > found.two  # it takes many of them
