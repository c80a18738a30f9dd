"""Curves, areas and agreement by hand, and on a program whose best circuit is known."""

import pytest
import torch

from saelab import models
from saelab.analysis.circuits.heads import curves
from saelab.analysis.circuits.heads.ablation import setting
from saelab.analysis.circuits.heads.agreement import (
    agreement,
    layer_index_auc,
    random_auc,
    rank_correlation,
)
from saelab.analysis.circuits.heads.curves import Point
from tests.analysis.compiled import compile_program, compiled_task


def points(*values: float) -> list[Point]:
    return [Point(size, value, value, value) for size, value in enumerate(values)]


def test_areas_by_hand():
    """f = 0, 1, 1 over sizes 0, 1, 2: linear 1/4 + 1/2; from size 1 on it is 1. |1 - f| is the
    rest."""
    assert curves.cpr(points(0, 1, 1)) == pytest.approx((0.75, 1.0))
    assert curves.cmd(points(0, 1, 1)) == pytest.approx((0.25, 0.0))
    assert curves.cpr(points(0, 2, 1)).linear == pytest.approx(
        1.25
    )  # above 1 where heads that work against it stay outside
    assert curves.cmd(points(0, 2, 1)).linear == pytest.approx(0.75)


def test_orders_by_hand():
    scores = torch.tensor([[1.0, -3.0], [2.0, 1.0]])
    assert curves.order(scores, signed=True).tolist() == [2, 0, 3, 1]
    assert curves.order(scores, signed=False).tolist() == [1, 2, 0, 3]


def test_sizes_run_from_none_to_all():
    assert curves.sizes(4) == [0, 1, 2, 3, 4]
    assert curves.sizes(144)[:11] == list(range(11)) and curves.sizes(144)[-1] == 144


def test_the_known_circuit_is_faithful_and_the_rest_is_not(tmp_path):
    compiled = compile_program("selector", tmp_path)
    model = models.load(tmp_path)
    task = compiled_task("selector", model, n=40)
    held_out = setting(model, task)
    right = curves.curve(held_out, compiled.heads.float())
    wrong = curves.curve(held_out, (~compiled.heads).float())
    assert right[0].value == pytest.approx(0, abs=1e-5) and right[3].value == pytest.approx(
        1, abs=1e-2
    )
    assert right[-1].value == pytest.approx(1, abs=1e-5)
    assert wrong[5].value == pytest.approx(0, abs=1e-2)
    assert curves.cmd(right).linear < 0.4 < curves.cmd(wrong).linear
    assert all(point.low <= point.value <= point.high for point in right)


def test_agreement_by_hand():
    """Scores 4 3 2 1, members 1 0 1 0: three of four pairs in order; precision 1 at the first
    member, 2/3 at the second."""
    scores, members = (
        torch.tensor([[4.0, -3.0], [2.0, 1.0]]),
        torch.tensor([[True, False], [True, False]]),
    )
    assert agreement(scores, members) == pytest.approx((0.75, (1 + 2 / 3) / 2, 2))
    assert agreement(torch.zeros(2, 2), members).auc == 0.5
    assert agreement(scores, torch.zeros(2, 2, dtype=torch.bool)).auc is None
    assert layer_index_auc(torch.tensor([[False, False], [True, False]])) == pytest.approx(5 / 6)


def test_random_scores_are_chance_with_the_spread_of_so_few_heads():
    members = torch.zeros(4, 8, dtype=torch.bool)
    members[3, :5] = True
    mean, low, high, _ = random_auc(members)
    sd = ((5 + 27 + 1) / (12 * 5 * 27)) ** 0.5  # Mann-Whitney's, normal approximation
    assert mean == pytest.approx(0.5, abs=0.02)
    assert (low, high) == pytest.approx((0.5 - 1.96 * sd, 0.5 + 1.96 * sd), abs=0.04)


def test_rank_correlation():
    effects = torch.tensor([[1.0, 2.0], [3.0, -4.0]])
    assert rank_correlation(-effects * 7, effects) == pytest.approx(1)
    assert rank_correlation(torch.ones(2, 2), effects) == 0
