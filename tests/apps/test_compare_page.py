"""The page that compares two runs, without a browser: what it shows, and what it says where there
is nothing to show."""

import json

import pytest

from apps.browser import PLACES
from saelab import matching
from saelab.files import write_json
from saelab.runs import RunFolder
from tests import toy_index as toy
from tests.apps.compared_runs import compare
from tests.apps.pages import opened_page
from tests.apps.test_browse import body


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("compared")
    made = {name: toy.make_run(root / name) for name in ("a", "b", "c")}
    compare(made["a"], made["b"])
    (made["b"] / "features.db").unlink()
    return root


@pytest.fixture
def app(runs, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs)]))
    return lambda **query: body(opened_page("compare", **query))


def test_both_stand_side_by_side_with_what_intervals_say(app, runs):
    shown = app(run="a", other="b")
    assert "fewer than 30 documents: Student&#39;s t" in shown
    assert "0.0500 to 0.150" in shown and ">worse<" in shown and ">not told apart<" in shown
    assert "B is better in FVU." in shown and "Configurations, over seeds" in shown
    assert "started from the same random rows" in shown and "25.0% of A&#39;s" in shown
    assert 'href="/feature?run=a&amp;feature=0"' in shown
    assert 'href="/feature?run=b&amp;feature=0"' in shown
    assert f"<code>saelab index {runs / 'b'}</code>" in shown


def test_the_other_order_shows_the_same_comparison(app):
    assert "A <a" in app(run="b", other="a") and "run=a" in app(run="b", other="a")


@pytest.mark.parametrize("show", ["cofiring", "first", "second", "split-first", "nonsense"])
def test_every_list_has_its_address(app, show):
    shown = app(run="a", other="b", show=show, page="99999999999")
    assert "step on" in shown


def test_a_pair_shows_its_contexts(app):
    assert 'class="example"' in app(run="a", other="b", pair="3-3")
    assert 'class="example"' not in app(run="a", other="b", pair="3-<b>")
    assert 'class="example"' not in app(run="a", other="b", pair="999-999")


def test_what_is_not_compared_says_what_to_type(app, runs):
    shown = app(run="a", other="c")
    assert f"<code>saelab compare {runs / 'a'} {runs / 'c'}</code>" in shown
    assert "There is no other run <code>&lt;x&gt;</code>" in app(run="a", other="<x>")


def test_a_comparison_of_an_earlier_sae_says_so(app, runs):
    path = RunFolder(runs / "a").compared(runs / "b")
    whole = path.read_text()
    document = {**json.loads(whole), "second_sae": "0" * 64}
    document.pop("sha256")
    write_json(path, document)
    try:
        assert "Of an earlier SAE of b" in app(run="a", other="b")
    finally:
        path.write_text(whole)


def test_a_damaged_comparison_is_named(app, runs):
    path = RunFolder(runs / "a").compared(runs / "b")
    whole = path.read_text()
    path.write_text(whole[:-20])
    try:
        assert "compare-b.json is damaged" in app(run="a", other="b")
    finally:
        path.write_text(whole)


def test_one_run_alone_says_that_another_is_needed(runs, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs / "a")]))
    assert "comparing needs another" in body(opened_page("compare"))


def test_the_toy_is_found_in_its_copy(runs):
    assert matching.FOUND == 0.7
    document = json.loads(RunFolder(runs / "a").compared(runs / "b").read_text())
    assert document["matched"]["first"]["value"] == 1
