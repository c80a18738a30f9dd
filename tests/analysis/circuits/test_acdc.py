"""ACDC on compiled programs: what it keeps is the circuit; what it measures is the divergence of
exactly that circuit."""

import pytest
import torch

from saelab import models
from saelab.analysis.circuits.heads import acdc
from saelab.analysis.circuits.heads.stream import named
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
