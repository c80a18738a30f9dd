"""The one interface on programs whose circuit is known by construction; what cannot know it stays
at chance."""

import pytest
import torch

from saelab import models
from saelab.analysis.circuits import METHODS, score
from saelab.analysis.circuits.heads.agreement import agreement
from saelab.errors import UsageError
from tests.analysis.compiled import compile_program, compiled_task


@pytest.fixture(scope="module", params=["induction", "selector"])
def program(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("program")
    compiled = compile_program(request.param, folder)
    model = models.load(folder)
    return model, compiled_task(request.param, model, n=16), compiled


@pytest.mark.parametrize(
    "method", ["eap-ig", "eap-ig-activations", "eap", "atp", "patching", "acdc"]
)
def test_the_compiled_circuit_is_found_node_by_node_and_edge_by_edge(program, method: str):
    model, task, compiled = program
    found = score(model, task, method, edges=True)
    assert found.heads.shape == compiled.heads.shape and found.seconds > 0
    assert agreement(found.heads, compiled.heads).auc == 1.0
    if found.edges is not None:
        sizes = torch.tensor([edge.score for edge in found.edges])
        members = torch.tensor([edge[:2] in compiled.edges for edge in found.edges])
        assert members.sum() == len(compiled.edges)
        assert agreement(sizes, members).auc == 1.0


def test_a_known_bad_method_is_seen_for_what_it_is(program, monkeypatch):
    """Scores of the right size in the wrong place: the same numbers, heads shuffled."""
    model, task, compiled = program
    right = score(model, task, "eap-ig").heads
    wrong = [
        agreement(right.flatten()[torch.randperm(8)].view(right.shape), compiled.heads).auc
        for _ in range(200)
    ]
    assert sum(auc for auc in wrong if auc) / 200 == pytest.approx(0.5, abs=0.1)


def test_the_baselines_know_nothing_and_say_so(program):
    model, task, _ = program
    assert torch.equal(
        score(model, task, "random", seed=3).heads, score(model, task, "random", seed=3).heads
    )
    assert not torch.equal(
        score(model, task, "random", seed=3).heads, score(model, task, "random", seed=4).heads
    )
    assert score(model, task, "layer-index").heads.tolist() == [[0.0] * 4, [1.0] * 4]


def test_an_unknown_method_is_refused_with_the_list(program):
    with pytest.raises(
        UsageError,
        match="unknown method 'eap_ig': methods are eap-ig, eap-ig-activations, eap, atp, codes",
    ):
        score(*program[:2], "eap_ig")
    assert set(METHODS) >= {"eap-ig", "codes", "acdc", "patching", "random", "layer-index"}
