"""ACDC on compiled programs: what it keeps is the circuit; what it measures is the divergence of
exactly that circuit."""

import pytest
import torch

from saelab import models
from saelab.analysis.circuits import score
from saelab.analysis.circuits.heads import acdc, attribution_patching, patching
from saelab.analysis.circuits.heads.links import within
from saelab.analysis.circuits.heads.stream import named
from saelab.errors import UsageError
from tests.analysis.compiled import compile_program, compiled_task


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    compiled = compile_program("induction", folder)
    model = models.load(folder)
    return model, compiled_task("induction", model, n=8), compiled


def test_it_keeps_the_circuit_and_nothing_else(program):
    model, task, compiled = program
    found = acdc.search(model, task)
    kept = {edge[:2] for edge in named(model, found.kept.float()) if edge.score}
    assert kept == set(compiled.edges)
    assert found.divergence < 1e-3


def test_a_threshold_above_every_effect_drops_everything(program):
    """Then every edge carries the twin, so the output is the twin's."""
    model, task, _ = program
    found = acdc.search(model, task, threshold=1e9)
    clean, corrupted = (
        model(tokens, return_type="logits")[:, -1].log_softmax(-1)
        for tokens in (task.clean, task.corrupted)
    )
    assert not found.kept.any()
    assert found.divergence == pytest.approx(
        float((clean.exp() * (clean - corrupted)).sum(-1).mean()), rel=1e-3
    )


def test_a_threshold_of_nothing_keeps_what_costs_anything(program):
    model, task, _ = program
    found = acdc.search(model, task, threshold=-1e9)
    assert bool(found.kept[torch.isfinite(found.scores) & (found.scores > 0)].all())
    assert found.divergence == pytest.approx(0, abs=1e-5)


def ticking():
    """A clock that is a second further each time that it is read."""
    seconds = iter(range(10**6))
    return lambda: float(next(seconds))


@pytest.mark.parametrize("method", ["acdc", "patching"])
def test_a_budget_goes_to_the_likeliest_edges_and_says_what_it_left(program, method: str):
    """Seven readings of the clock before the end: six edges are measured."""
    model, task, _ = program
    stop = within(7, ticking())
    if method == "acdc":
        scores_UR = acdc.search(model, task, stop=stop).scores
    else:
        scores_UR = patching.edge_scores(model, task, stop)
    likely = named(model, attribution_patching.edge_scores(model, task).mean(0))
    measured = {edge[:2] for edge in named(model, scores_UR)}
    assert measured == {edge[:2] for edge in likely[:6]}
    assert measured != {edge[:2] for edge in likely[::-1][:6]}
    assert len(likely) == int(scores_UR.isnan().sum()) + 6


def test_a_budget_that_is_long_enough_changes_nothing(program):
    model, task, compiled = program
    found = acdc.search(model, task, stop=within(10**5, ticking()))
    kept = {edge[:2] for edge in named(model, found.kept.float()) if edge.score}
    assert kept == set(compiled.edges) and not found.scores.isnan().any()
    whole, long = (
        patching.node_scores(model, task),
        patching.node_scores(model, task, lambda: False),
    )
    assert all(torch.equal(a, b) for a, b in zip(whole, long, strict=True))


def test_what_was_not_measured_has_no_score_and_no_time_at_all_is_refused(program):
    model, task, _ = program
    found = score(model, task, "patching", stop=within(4, ticking()), edges=True)
    assert found.mlps is not None and found.edges == [] and found.n_edges > 0
    unmeasured = int(found.heads.isnan().sum() + found.mlps.isnan().sum())
    assert unmeasured == found.heads.numel() + found.mlps.numel() - 3
    with pytest.raises(UsageError, match="the time was over before acdc measured a head"):
        score(model, task, "acdc", stop=lambda: True)
    with pytest.raises(UsageError, match="eap ends by itself: a budget is for acdc and patching"):
        score(model, task, "eap", stop=lambda: False)
