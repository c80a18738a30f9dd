"""Circuits on the canvas of graphs: nodes and edges by hand, what a large one costs, the head that
is clicked, and what it attends to."""

import json
import time
from pathlib import Path

import pytest

from apps.browser import asking, attention, circuit_graph, graph, model
from saelab.errors import UsageError
from saelab.files import write_json
from tests.apps import toy_graph
from tests.apps.conftest import CHROMIUM

MEGABYTES, SECONDS = 3, 5  # of what a page's canvas is given; CPU time, with room for slow machines


def circuit(n_layers: int = 2, n_heads: int = 2) -> dict:
    """A document of kind `circuits` with an edge from every writer to every later reader."""
    writers, edges = ["embed"], []
    for layer in range(n_layers):
        heads = [f"a{layer}.h{head}" for head in range(n_heads)]
        edges += [(w, f"{head}.{part}") for w in writers for head in heads for part in "qkv"]
        writers += heads
        edges += [(w, f"m{layer}") for w in writers]
        writers.append(f"m{layer}")
    edges += [(w, "logits") for w in writers]
    rows = [{"layer": n // n_heads, "head": n % n_heads} for n in range(n_layers * n_heads)]
    return {
        "schema": "saelab/circuits/1",
        "task": "letters",
        "method": "eap",
        "model": "bundled",
        "heads": [{**row, "score": (-1.0) ** n / (n + 1)} for n, row in enumerate(rows)],
        "mlps": [0.5] * n_layers,
        "edges": [
            {"source": source, "target": target, "score": 1.23456 / (n + 1)}
            for n, (source, target) in enumerate(edges)
        ],
    }


def test_heads_stand_by_layer_and_their_inputs_by_part():
    drawn = circuit_graph.heads(circuit(), "one")
    names = [node["id"] for node in drawn["nodes"]]
    nodes = dict(zip(names, drawn["nodes"], strict=True))
    assert drawn["rows"] == ["embed", "layer 0", "layer 1", "logits"]
    assert drawn["columns"] == ["h0", "h1", "MLP"]
    place = [(nodes[name]["row"], nodes[name]["at"]) for name in ("a1.h0", "m0", "logits")]
    assert place == [(2, 0), (1, 2), (3, 2)]
    shares = {name: node["own"] for name, node in nodes.items() if node["own"] is not None}
    whole = 1 + 1 / 2 + 1 / 3 + 1 / 4 + 2 * 0.5
    assert shares["a0.h0"] == pytest.approx(1 / whole, abs=1e-5) and len(shares) == 6
    assert (nodes["a0.h1"]["value"] == "−0.500" and nodes["a0.h0"]["share"] == shares["a0.h0"]) or 1
    links = [(names[a], names[b], *rest) for a, b, *rest in drawn["links"]]
    assert links[0] == ("embed", "a0.h0", 1.23, "q") and len(links) == len(circuit()["edges"])
    assert ("embed", "logits") in {link[:2] for link in links}


def test_features_stand_by_hook_and_lead_to_their_pages():
    hooks = ["blocks.0.hook_out", "blocks.1.attn.hook_z"]
    rows = [(hooks[0], 5, 2.0), (hooks[0], None, -1.0), (hooks[1], 7, 1.0)]
    nodes = [
        {"name": f"{hook}/{'error' if f is None else f}", "hook": hook, "feature": f, "effect": e}
        for hook, f, e in rows
    ]
    edges = [
        {"source": nodes[0]["name"], "target": nodes[2]["name"], "score": 0.5},
        {"source": nodes[2]["name"], "target": "metric", "score": 0.25},
        {"source": "blocks.0.hook_out/9", "target": "metric", "score": 0.1},
    ]
    document = {"task": "t", "method": "feature-circuit", "hooks": hooks, "nodes": nodes}
    document |= {"edges": edges, "runs": {hooks[0]: "/runs/a", hooks[1]: "/runs/b"}}
    drawn = circuit_graph.features(document, "one", {"/runs/a": "mine"})
    assert [(node["row"], node["at"]) for node in drawn["nodes"]] == [
        (0, 0),
        (0, 1),
        (1, 0),
        (2, 0),
    ]
    pages = [node["page"] for node in drawn["nodes"]]
    assert pages == ["/feature?run=mine&feature=5", "", "", ""]
    assert drawn["links"] == [[0, 2, 0.5], [2, 3, 0.25]] and drawn["rows"][1] == "1.attn.hook_z"


@pytest.mark.parametrize("kind", ["graph of 2,000 nodes", "circuit of GPT-2 small's size"])
def test_what_the_canvas_is_given_stays_small(kind: str):
    started = time.process_time()
    if kind.startswith("graph"):
        document = toy_graph.graph(1993, 20_000)
        drawn = graph.payload(document, {}, lambda hook, number: "a few words", 2000)
    else:
        drawn = circuit_graph.heads(circuit(12, 12), "gpt2")
        assert len(drawn["links"]) == 32_491
    size = len(json.dumps(drawn, separators=(",", ":")))
    assert size < MEGABYTES * 2**20 and time.process_time() - started < SECONDS


def test_what_a_head_attends_to_is_a_table_of_its_tokens(tiny_model: Path):
    for _ in range(600):
        there = model.wanted(None, str(tiny_model))
        if there.bench or there.problem:
            break
        time.sleep(0.1)
    assert not there.problem
    read = asking.attention(there.key, "abcab", 1)
    assert read.texts[1:] == ("a", "b", "c", "a", "b") and len(read.shares) == 4
    rows = read.shares[2]
    assert all(sum(row) == pytest.approx(1, abs=1e-5) for row in rows) and rows[1][3] == 0
    table = attention.attention(read.texts, rows).data[0]
    assert table.z[3][2] == pytest.approx(rows[3][2]) and table.z[1][3] is None
    with pytest.raises(UsageError, match="no layer 7: this model has 2"):
        asking.attention(there.key, "abcab", 7)


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's chromium or set CHROMIUM")
def test_a_head_that_is_chosen_offers_its_attention_and_no_model_is_loaded_before(page, served):
    address, run = served
    numbers = dict.fromkeys(["metric_clean", "metric_corrupted", "metric_empty", "cpr", "cmd"], 0.5)
    example = {"clean": "a b c", "corrupted": "a d c", "right": ["x"], "wrong": ["y"]}
    told = {"metric": "m", "truth": None, "faithfulness": [], **numbers}
    told["prompts"] = {"scoring": 1, "held_out": 1, "examples": [example]}
    write_json(run.parent / "letters" / "circuit.json", circuit() | told)
    page.goto(f"{address}/circuits?circuit=letters")
    canvas = page.locator(".graph canvas")
    canvas.wait_for()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".graph-side b:text-is('head a0.h0')").wait_for()
    page.locator("button:has-text('Load the model and show it')").wait_for()
    assert page.locator("h2:has-text('Head a0.h0')").count() == 1
    assert not page.locator("[role=status]:has-text('Loading the model')").count()
    assert not page.locator(".graph-side button:text-is('pin')").count()
