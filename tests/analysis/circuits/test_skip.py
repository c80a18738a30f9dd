"""A transcoder's skip is a path through graphs and feature circuits, not an error."""

from pathlib import Path

import pytest
import torch

from saelab import SAE, models
from saelab.analysis.circuits.features import edges, effects
from saelab.analysis.circuits.graphs import influence
from saelab.analysis.circuits.graphs.apart import take_apart
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, graph
from saelab.analysis.parts import Site, sites, split
from tests.analysis.dictionaries import random_task, transcoder


def with_skip(layer: int, scale: float = 0.3) -> SAE:
    """A transcoder of the tiny model with a random skip."""
    sae = transcoder(layer, seed=layer)
    draw = torch.Generator().manual_seed(layer)
    sae.W_skip = torch.nn.Parameter(scale * torch.randn(32, 32, generator=draw) / 32**0.5)
    return sae


SAES = [with_skip(0), with_skip(1)]
TASK = random_task()


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def test_what_the_parts_add_up_to_has_the_skip_beside_the_error():
    sae = SAES[0]
    x_CTD, target_CTE = torch.randn(2, 2, 5, 32, generator=torch.Generator().manual_seed(0))
    parts = split(sae, x_CTD, target_CTE)
    error_CTE = target_CTE - sae(x_CTD)
    torch.testing.assert_close(parts.error[:, 1:], error_CTE[:, 1:])
    torch.testing.assert_close(parts.skip[:, 1:], (x_CTD @ sae.W_skip.T)[:, 1:])
    torch.testing.assert_close(parts.error[:, 0], target_CTE[:, 0])
    assert not parts.skip[:, 0].any()


def sums_and_errors(model, monkeypatch=None) -> tuple[float, float]:
    """By how much sums of inputs miss their totals, and which share of the influence errors
    have."""
    drawn = graph(model, take_apart(model, TASK.clean[0], SAES))
    targets = (drawn.nodes.kind == FEATURE) | (drawn.nodes.kind == LOGIT)
    miss = (drawn.edges.sum(1) + drawn.biases - drawn.totals)[targets].abs().max()
    weights_M = influence.output_weights(drawn)
    reach_M = influence.influence(influence.shares(drawn.edges), weights_M)
    errors = float(reach_M[drawn.nodes.kind == ERROR].sum() / weights_M.sum())
    return float(miss / drawn.totals[targets].abs().max()), errors


def test_a_graph_with_skips_adds_up_and_a_skip_counted_as_error_is_caught(model, monkeypatch):
    miss, errors = sums_and_errors(model)
    assert miss < 1e-5
    # What was done before: no path, so that the error holds what the skip adds.
    plain = split

    def as_error(sae, *acts):
        parts = plain(sae, *acts)
        nothing = torch.zeros_like(parts.skip)
        return parts._replace(error=parts.error + parts.skip, skip=nothing)

    monkeypatch.setattr("saelab.analysis.circuits.graphs.apart.split", as_error)
    monkeypatch.setattr(Site, "passing", lambda self: {})
    miss_as_error, more_errors = sums_and_errors(model)
    assert miss_as_error < 1e-5 and abs(more_errors - errors) > 0.01


def test_a_skip_carries_earlier_features_to_the_logits(model, monkeypatch):
    local = take_apart(model, TASK.clean[0], SAES)
    weights = []
    for _ in ("with the path", "without"):
        drawn = graph(model, local)
        logits, mine = drawn.nodes.kind == LOGIT, drawn.nodes.kind == FEATURE
        weights.append(drawn.edges[logits][:, mine & (drawn.nodes.place == 0)])
        monkeypatch.setattr(Site, "passing", lambda self: {})
    assert float((weights[0] - weights[1]).abs().max()) > 1e-3


def test_effects_and_edges_of_a_feature_circuit_leave_the_skip_to_what_is_upstream(model):
    places = sites(model, SAES)
    changes, _ = effects.effects(model, TASK, places, steps=2)
    (clean, corrupted) = (effects.record(model, t, places)[1] for t in (TASK.clean, TASK.corrupted))
    error_PTE = (corrupted[1] - SAES[1](corrupted[0])) - (clean[1] - SAES[1](clean[0]))
    torch.testing.assert_close(changes[1].error[:, 1:], error_PTE[:, 1:].detach())
    traced = edges.trace(model, TASK.clean, places)
    logits = model(TASK.clean)
    torch.testing.assert_close(traced.logits, logits, rtol=1e-4, atol=1e-4)
    (reach,) = torch.autograd.grad(traced.logits[:, -1].sum(), traced.leaves[0], retain_graph=True)
    assert reach.any()
