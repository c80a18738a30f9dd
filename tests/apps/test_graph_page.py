"""The page of attribution graphs: what the canvas is given, what is kept of what a reader does, and
the canvas itself in a real Chromium."""

import json
import re
import time
from pathlib import Path

import pytest

from apps.browser import PLACES, graph
from apps.browser.canvas import SCRIPTS
from apps.browser.views import graphs
from saelab.files import read_json
from saelab.runs import RunFolder
from tests.apps import toy_graph
from tests.apps.conftest import CHROMIUM
from tests.apps.pages import opened_page


def payload(n_features: int = 40, largest: int = 100, **runs: str) -> dict:
    document = toy_graph.graph(n_features, 200)
    return graph.payload(document, runs, lambda hook, number: f"{hook} {number}", largest)


def test_the_canvas_is_given_every_node_and_link_by_number():
    document, drawn = toy_graph.graph(40, 200), payload()
    names = [node["id"] for node in drawn["nodes"]]
    assert sorted(names) == sorted(node["node_id"] for node in document["nodes"])
    links = {(names[a], names[b]): weight for a, b, weight in drawn["links"]}
    for link in document["links"]:
        mine = links[link["source"], link["target"]]
        same = [one for one in document["links"] if one["source"] == link["source"]]
        weights = [one["weight"] for one in same if one["target"] == link["target"]]
        assert any(mine == pytest.approx(weight, rel=5e-3) for weight in weights)
    assert drawn["rows"] == ["tokens", "layer 0", "layer 1", "layer 2", "layer 3", "output"]


def test_of_a_large_graph_the_nodes_of_most_influence_are_drawn_and_no_link_hangs_loose():
    drawn = payload(largest=20)
    kinds = [node["kind"] for node in drawn["nodes"]]
    assert len(kinds) == 20 and kinds.count("token") == 6 and kinds.count("logit") == 1
    shares = [node["share"] for node in drawn["nodes"] if node["kind"] == "feature"]
    assert max(shares) == pytest.approx(13 / 40)
    assert all(max(a, b) < 20 for a, b, _ in drawn["links"])


def test_a_node_has_its_own_share_of_the_influence_and_the_page_of_its_run():
    drawn = payload(**{toy_graph.HOOK.format(1): "mine"})
    features = [node for node in drawn["nodes"] if node["kind"] == "feature"]
    assert sum(node["own"] for node in features) == pytest.approx(1, abs=1e-3)
    pages = {node["page"] for node in features if node["row"] == 2}
    assert all(page.startswith("/feature?run=mine&feature=") for page in pages)
    assert {node["page"] for node in features if node["row"] != 2} == {""}


def test_why_a_head_attends_is_told_of_the_node_by_number():
    document = toy_graph.graph(40, 200)
    node, other = document["nodes"][20], document["nodes"][8]
    gone = {**other, "node_id": "gone", "ctx_idx": 2}
    document["qk_only_nodes"] = {"gone": gone}
    at = {"layer": 1, "head": 3, "dest": node["ctx_idx"], "src": 2}
    node["qk_tracing_results"] = {
        "pair_wise_contributors": [[node["node_id"], "gone", 0.51234], ["unknown", "gone", 0.1]],
        "top_q_marginal_contributors": [],
        "top_k_marginal_contributors": [["gone", 0.5]],
        "score": 1.25,
        "rest": -0.5,
        "edges": [{**at, "pattern": 0.75, "weight": 2.0}],
    }
    drawn = graph.payload(document, {}, lambda hook, number: "word", 1000)
    ((number, told),) = drawn["attended"].items()
    assert drawn["nodes"][number]["id"] == node["node_id"]
    assert told["pairs"] == [[number, len(drawn["nodes"]), 0.512]]
    assert told["edges"] == [[1, 3, 2, 0.75, 2.0]] and told["score"] == 1.25
    (end,) = drawn["others"]
    assert drawn["rows"][end["row"]] == f"layer {gone['layer']}" and "word" in end["text"]


def test_a_graph_is_saved_with_all_its_nodes_and_links_and_drawn():
    document = toy_graph.graph(40, 200)
    files = graphs._files(document, [], payload())
    slug = document["metadata"]["slug"]
    made = {file.name: file.make() for file in files}
    for part in ("nodes", "links"):
        rows = json.loads(made[f"graph-{slug}-{part}.json"])["rows"]
        assert rows == document[part]
        assert made[f"graph-{slug}-{part}.csv"].count("\n") >= 1 + len(rows)
    assert "Plotly.newPlot" in made[f"graph-{slug}.html"]


def test_every_colour_of_the_canvas_is_one_of_the_style():
    folder = Path(graph.__file__).parent
    scripts = "".join(path.read_text() for path in SCRIPTS)
    asked = set(re.findall(r'"(--[a-z-]+)"', scripts))
    known = set(re.findall(r"(--[a-z-]+):", (folder / "style.css").read_text()))
    assert asked and asked <= known


def test_a_page_without_graphs_says_what_makes_one(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    assert "saelab graph --run RUN --prompt TEXT" in shown(opened_page("graphs"))


def test_a_graph_says_its_scores_and_how_far_it_is_to_be_believed(tmp_path: Path, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    folder = toy_graph.make(tmp_path / "one")
    said = shown(opened_page("graphs"))
    assert "a &lt;b&gt; c d e" in said and "a note" in said and "0.6" in said
    assert "the model itself" in said and "Is it to be believed?" in said
    folder.graph("prompt-0").unlink()
    assert "is gone: trace it again" in shown(opened_page("graphs"))


def shown(tester) -> str:
    return " ".join(element.proto.body for element in tester.get("html"))


@pytest.mark.browser
@pytest.mark.skipif(not CHROMIUM, reason="no Chromium: install Debian's chromium or set CHROMIUM")
def test_what_is_pinned_named_and_grouped_is_kept_in_both_files(page, served):
    address, run = served
    folder = RunFolder(run.parent / "graph")
    page.goto(f"{address}/graphs?graph=graph")
    canvas = page.locator(".graph canvas")
    canvas.wait_for()
    canvas.focus()
    page.keyboard.press("ArrowRight")
    page.locator(".graph-side button:text-is('pin')").click()
    page.locator(".graph-side input[aria-label='name of the node']").fill("mine")
    page.keyboard.press("Tab")
    kept = until(folder, lambda fields: fields["qParams"]["pinnedIds"])
    (name,) = kept["qParams"]["pinnedIds"]
    named = until(folder, lambda fields: [n for n in fields["nodes"] if n["clerp"] == "mine"])
    assert [node["node_id"] for node in named["nodes"] if node["clerp"] == "mine"] == [name]
    page.reload()
    page.locator(".graph-side button:text-is('mine')").wait_for()
    page.locator(".graph-side input").fill("a group")
    page.keyboard.press("Tab")
    grouped = until(folder, lambda fields: fields["qParams"]["supernodes"])
    assert grouped["qParams"]["supernodes"] == [["a group", name]]
    foreign = read_json(folder.path / "circuit-tracer" / "prompt-0.json")
    assert foreign["qParams"] == grouped["qParams"] and len(foreign) == 4


def until(folder: RunFolder, holds) -> dict:
    """The graph's document once something holds of it, at the latest in 10 s."""
    for _ in range(100):
        document = read_json(folder.graph("prompt-0"))
        if holds(document):
            return document
        time.sleep(0.1)
    raise AssertionError(document["qParams"])
