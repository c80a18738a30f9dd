"""A graph as JSON: names, links and thresholds against the graph itself, and what the foreign
schema cannot hold."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis.circuits.graphs import influence, report
from saelab.analysis.circuits.graphs.apart import take_apart
from saelab.analysis.circuits.graphs.document import Words, document, theirs
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph, Nodes, graph
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, dictionary, transcoder

SAES = [transcoder(0), transcoder(1, seed=1)]
WORDS = Words("a", "mine", "text", ["a", "b"], ["x", "y"], 2)


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def by_hand(feature: int, layer: int = 1) -> Graph:
    """A feature of layer 0 at position 1, the error of a layer, two tokens, two logits."""
    kinds = [FEATURE, ERROR, TOKEN, TOKEN, LOGIT, LOGIT]
    numbers = [feature, -1, 5, 6, 7, 8]
    nodes = Nodes(
        torch.tensor(kinds),
        torch.tensor([0, layer, -1, -1, -1, -1]),
        torch.tensor([1, 1, 0, 1, 1, 1]),
        torch.tensor(numbers),
        torch.tensor([2.5, 1, 1, 1, 0.75, 0.25]),
    )
    edges = torch.zeros(6, 6)
    edges[0, 2], edges[4, 0], edges[4, 1], edges[5, 3] = 1, 2, 1, -3
    places = ["blocks.0.mlp.hook_out", "blocks.1.mlp.hook_out"]
    return Graph(nodes, edges, torch.zeros(6), torch.zeros(6), places)


def test_nodes_and_links_by_hand():
    drawn = by_hand(feature=9)
    fields = document(drawn, influence.prune(drawn, 1.0, 1.0), WORDS, 0.8)
    nodes = {node["node_id"]: node for node in fields["nodes"]}
    assert set(nodes) == {"0_9_1", "0_1_1", "E_5_0", "E_6_1", "3_7_1", "3_8_1"}
    assert nodes["0_9_1"]["feature"] == 9 * 10 // 2 + 9 and nodes["0_9_1"]["activation"] == 2.5
    assert nodes["3_7_1"]["clerp"] == 'Output "x" (p=0.750)' and nodes["3_7_1"]["is_target_logit"]
    assert not nodes["3_8_1"]["is_target_logit"] and nodes["E_5_0"]["layer"] == "E"
    links = {(link["source"], link["target"]): link["weight"] for link in fields["links"]}
    assert links == {
        ("E_5_0", "0_9_1"): 1,
        ("0_9_1", "3_7_1"): 2,
        ("0_1_1", "3_7_1"): 1,
        ("E_6_1", "3_8_1"): -3,
    }
    # logit 7 has .75: 2/3 of it through the feature and its token, 1/3 from the error; logit 8's
    # .25 is the other token's. All influence: .5 + .5 + .25 + .25 = 1.5.
    assert nodes["E_6_1"]["influence"] == pytest.approx(1)
    assert nodes["0_9_1"]["influence"] == pytest.approx(0.5 / 1.5)


def test_an_error_and_a_feature_never_share_a_name():
    drawn = by_hand(feature=1)  # theirs calls both 0_1_1
    fields = document(drawn, influence.prune(drawn, 1.0, 1.0), WORDS, 0.8)
    names = [node["node_id"] for node in fields["nodes"]]
    assert len(set(names)) == len(names) == 6 and "0_1_1_error" in names


def test_every_link_of_a_traced_prompt_is_an_edge_and_joins_kept_nodes(model):
    traced = report.trace(
        model, SAES, report.prompt(model, "abcab"), report.Plan(n_attended=0), "p"
    )
    fields = theirs(traced.fields, traced.places)
    names = {node["node_id"] for node in fields["nodes"]}
    assert fields["links"] and set(fields) == {"metadata", "qParams", "nodes", "links"}
    assert all({link["source"], link["target"]} <= names for link in fields["links"])
    assert fields["metadata"]["prompt_tokens"] == ["<|endoftext|>", *"abcab"]


def test_a_residual_sae_is_written_in_our_own_form_only(model):
    saes = [dictionary(RESIDUAL)]
    traced = report.trace(model, saes, report.prompt(model, "abcab"), report.Plan(), "p")
    assert any(node["node_id"].startswith("0.hook_out_") for node in traced.fields["nodes"])
    with pytest.raises(UsageError, match=r"transcoders of MLPs alone.*blocks\.0\.hook_out"):
        theirs(traced.fields, traced.places)


def test_scores_and_notes_over_prompts(model):
    prompts = [report.prompt(model, text) for text in ("abcab", "xyzxy", "aabba")]
    fields = report.report(model, SAES[:1], prompts, report.Plan(n_ablated=4))
    for name in influence.Scores._fields:
        values = [row["scores"][name] for row in fields["prompts"]]
        assert fields["scores"][name]["value"] == pytest.approx(sum(values) / 3)
    assert fields["notes"] == ["no transcoder for layer 1: the MLP there is traced as error"]
    assert fields["faithfulness"]["n_ablated"] == 12
    drawn = graph(model, take_apart(model, prompts[0].tokens, SAES[:1]))
    assert fields["prompts"][0]["n_nodes"] == len(drawn.nodes.kind)


def test_a_prompt_that_is_not_answered_says_so(model):
    wrong = report.prompt(model, "abcab", ["q"])
    fields = report.report(model, SAES, [wrong], report.Plan(n_ablated=0))
    (row,) = fields["prompts"]
    assert row["answered"] is (row["next_token"] == "q") and fields["faithfulness"] == {}
    assert any("are not answered as given" in note for note in fields["notes"])


@pytest.mark.parametrize("text", ["", "a" * 40])
def test_prompts_that_cannot_be_traced_are_refused(model, text: str):
    sentence = "has 41 tokens, the model's context 32" if text else "the prompt is empty"
    with pytest.raises(UsageError, match=sentence):
        report.prompt(model, text)
