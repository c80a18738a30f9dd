"""How far graphs foretell ablations: sums by hand, controls, and a column that is always right."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import models
from saelab.analysis.circuits.graphs import faithfulness
from saelab.analysis.circuits.graphs.apart import take_apart
from saelab.analysis.circuits.graphs.graph import FEATURE, Graph, Nodes, graph
from saelab.analysis.circuits.graphs.intervention import Check
from tests.analysis.dictionaries import random_task, transcoder

TASK = random_task()
SAES = [transcoder(0), transcoder(1, seed=1)]


@pytest.fixture(scope="module")
def traced(tiny_model: Path) -> list[tuple]:
    model, every = models.load(tiny_model), []
    for tokens_T in TASK.clean[:3]:
        local = take_apart(model, tokens_T, SAES)
        drawn = graph(model, local)
        every.append((drawn, faithfulness.trials(model, local, drawn, n=8)))
    return every


def test_controls_are_other_features_of_the_place_and_position(traced):
    for drawn, trials in traced:
        nodes = drawn.nodes
        mine, other = trials.features, trials.controls
        assert len(mine) == 8 and not (mine == other).any()
        assert (nodes.kind[other] == FEATURE).all()
        for field in (nodes.place, nodes.position):
            assert torch.equal(field[mine], field[other])


@pytest.mark.parametrize(("others", "control"), [((1.5, 10.0, 30.0), {1}), ((10.0, 30.0), {1})])
def test_a_control_is_of_alike_size_or_else_the_nearest(others: tuple, control: set[int]):
    values = torch.tensor([1.0, *others])
    same = torch.zeros(len(values), dtype=torch.int64)
    nodes = Nodes(same + FEATURE, same, same, torch.arange(len(values)), values)
    drawn = Graph(nodes, torch.zeros(0, 0), values, values, ["blocks.0.mlp.hook_out"])
    draw = torch.Generator().manual_seed(0)
    assert {faithfulness._control(drawn, 0, draw) for _ in range(20)} == control


def test_the_held_column_is_foretold_and_the_controls_are_not(traced):
    columns = faithfulness.agreement([trials for _, trials in traced])
    held = columns["held"]
    assert held.correlation.value == pytest.approx(1, abs=1e-4)
    assert held.slope.value == pytest.approx(1, abs=1e-3)
    assert held.correlation.null < 0.9
    assert columns["model"].correlation.value < 0.9999


def made(x: list[float], y: list[float], other: list[float]) -> faithfulness.Trials:
    """One prompt's trials with these changes in each column."""
    foretold, measured, theirs = (torch.tensor([values]).T for values in (x, y, other))
    nodes = torch.arange(len(x))
    names = ("held", "free", "model")
    effects, controlled = (
        Check(foretold, dict.fromkeys(names, column)) for column in (measured, theirs)
    )
    return faithfulness.Trials(nodes, nodes, effects, controlled)


def test_correlation_and_slope_are_those_of_all_pairs():
    draw = np.random.default_rng(0)
    x = draw.normal(size=(4, 6))
    y = 2 * x + draw.normal(size=(4, 6))
    other = draw.normal(size=(4, 6))
    every = [made(*(row.tolist() for row in rows)) for rows in zip(x, y, other, strict=True)]
    column = faithfulness.agreement(every)["free"]
    expected = np.corrcoef(x.ravel(), y.ravel())[0, 1]
    assert column.correlation.value == pytest.approx(expected, rel=1e-5)
    assert column.correlation.null == pytest.approx(np.corrcoef(x.ravel(), other.ravel())[0, 1])
    assert column.slope.value == pytest.approx((x * y).sum() / (x * x).sum(), rel=1e-5)
    assert column.slope.low < column.slope.value < column.slope.high


def test_one_prompt_has_no_interval():
    column = faithfulness.agreement([made([1.0, 2.0], [2.0, 4.0], [0.0, 1.0])])["held"]
    assert column.slope.value == pytest.approx(2) and column.slope.low is None
