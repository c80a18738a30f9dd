"""The page of all runs, without a browser, and the pure parts behind it."""

import json

import pytest

from apps.browser import PLACES, run_charts, standing
from apps.browser.tail import Tail
from saelab.errors import FailedRun
from tests import toy_index as toy
from tests.apps.compared_runs import compare
from tests.apps.pages import opened_page
from tests.apps.test_browse import body


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Two compared runs, one that trains, one whose header is damaged, one that is empty."""
    root = tmp_path_factory.mktemp("runs")
    made = {name: toy.make_run(root / name) for name in ("a", "b")}
    compare(made["a"], made["b"])
    for name in ("half", "broken"):
        (root / name).mkdir()
    (root / "half" / "config.yaml").write_text("sparsify: topk\nk: 3\ntokens: 1000\nfeatures: 24\n")
    (root / "half" / "metrics.jsonl").write_text('{"tokens": 250, "fvu": 0.5}\n{"tok')
    (root / "broken" / "sae").mkdir()
    (root / "broken" / "sae" / "sae.json").write_text("{")
    return root


@pytest.fixture
def app(runs, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(runs)]))
    return lambda **query: opened_page("runs", **query)


def test_every_run_has_a_row_and_a_damaged_one_hides_no_other(app):
    shown = body(app())
    assert shown.count('role="checkbox"') == 4
    assert "cannot be read" in shown and "sae.json is damaged" in shown
    assert "TopK k=3" in shown and "training, 25%" in shown
    assert "0.104</b>" in shown and "0.100 to 0.108" in shown


def test_the_address_chooses_sorts_and_rates(app):
    assert "2 of 4 chosen" in body(app(chosen="a,half,gone"))
    assert "0 of 4 chosen" in body(app(chosen="-"))
    assert "4 of 4 chosen" in body(app(chosen="*"))
    shown = body(app(chosen="a,b", sort="name", descending="1"))
    assert shown.index(">half<") < shown.index(">a<") and "run ↓" in shown
    assert "Places" in shown and ">1<" in shown and ">2<" in shown
    rows = shown[shown.index(">over seeds<") :]  # the run a is better, and b's configuration
    spans = [rows.index(f"<td>{one}</td><td>{two}</td>") for one, two in ((1, 2), (2, 1))]
    assert spans[0] < spans[1]
    assert "step on" in body(app(chosen="a,b", by="nonsense"))


def test_what_is_not_compared_is_said_with_what_to_type(app, runs):
    path = next((runs / "a").glob("compare-*.json"))
    whole = path.read_text()
    path.write_text("{")
    try:
        shown = body(app(chosen="a,b"))
        assert "1 to 2" in shown and f"saelab compare {runs / 'a'} {runs / 'b'}" in shown
    finally:
        path.write_text(whole)


def test_without_runs_it_says_what_makes_one(tmp_path, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path)]))
    assert "saelab demo" in body(opened_page("runs"))


def test_places_are_what_verdicts_allow():
    said = {("a", "b"): "worse", ("c", "a"): "better", ("b", "c"): "not told apart"}
    places = {each.name: (each.best, each.worst) for each in standing.places("abc", said)}
    assert places == {"a": (1, 1), "b": (2, 3), "c": (2, 3)}
    (first, second) = standing.places("ab", {})
    assert (first.best, first.worst, first.unknown) == (1, 2, ["b"])
    assert second.unknown == ["a"]


def test_the_pareto_front_is_what_no_other_beats():
    values = {"a": (16, 0.10), "b": (32, 0.05), "c": (32, 0.08), "d": (64, 0.05), "e": (16, 0.1)}
    assert set(run_charts.undominated(values, "lower")) == {"a", "b", "e"}
    assert set(run_charts.undominated(values, "higher")) == {"a", "e"}


def test_names_stand_where_the_figure_has_room_for_them():
    given = {"first": 16.0, "middle": 24.0, "last": 32.0}
    points = {name: ({"value": l0}, {"value": 0.1}) for name, l0 in given.items()}
    exact = {"low": 1.0, "high": 1.0, "null": None}
    points = {name: tuple({**one, **exact} for one in pair) for name, pair in points.items()}
    drawn = run_charts.pareto(points, "FVU", "lower", run_charts.colors([*given]))
    first, _, last = drawn.data[0].textposition
    assert first.endswith("right") and last.endswith("left")


def test_only_new_lines_are_read_and_another_file_is_read_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"n": 0}\n{"n": 1}\n{"n"')
    tail = Tail(path)
    assert [row["n"] for row in tail.rows()] == [0, 1]
    before = tail.n_read
    with path.open("a") as file:
        file.write(": 2}\n")
    assert [row["n"] for row in tail.rows()] == [0, 1, 2]
    assert tail.n_read - before == len('{"n": 2}\n')
    assert tail.rows() is tail.rows() and tail.n_read - before == len('{"n": 2}\n')
    path.write_text('{"n": 7}\n')
    assert [row["n"] for row in tail.rows()] == [7]
    with path.open("a") as file:
        file.write("nonsense\n")
    with pytest.raises(FailedRun, match="line 2 of"):
        tail.rows()
