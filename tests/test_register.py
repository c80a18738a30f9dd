"""A metric, a source and a format from outside work as the built-in ones do, and no name is given
twice."""

import doctest
from pathlib import Path

import pytest

import saelab
from apps.browser import tables
from apps.cli import report_tables
from saelab import formats, sparsify
from saelab.activations import registry
from saelab.errors import UsageError
from saelab.evaluation import rows
from saelab.folders import find
from tests.activations.test_source import Lines

METRIC = saelab.Metric("mine", "mine", "mine", "L0", "none", lambda sums: sums["l0"])


@pytest.fixture(autouse=True)
def gone_after_the_test(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(formats, "FORMATS", dict(formats.FORMATS))
    monkeypatch.setattr(registry, "_registered", {})
    monkeypatch.setattr(rows, "_ROWS", rows.table())
    monkeypatch.setattr(sparsify, "_masks", {})


def test_a_metric_from_outside_is_in_reports_and_tables(tiny_run: Path, tiny_cache: Path):
    row = saelab.Metric(
        "twice_l0",
        "twice L0",
        "2 L0",
        "2 x L0",
        "none",
        lambda sums: 2 * sums["l0"] / sums["tokens"],
    )
    saelab.register("metric", row)
    sae, cache = saelab.SAE.load(tiny_run), saelab.Cache(tiny_cache)
    model = saelab.load_model(sae.origin.model.name)
    report = saelab.evaluate(sae, cache, model, n_tokens=300)
    assert report["twice_l0"]["value"] == pytest.approx(2 * report["l0"]["value"])
    assert "twice L0" in report_tables.table(report)
    assert "twice L0" in tables.report(report, "runs/tiny")
    with pytest.raises(UsageError, match="reports have a field 'twice_l0' already"):
        saelab.register("metric", row)
    with pytest.raises(UsageError, match="reports have a field 'fvu' already"):
        saelab.register("metric", row._replace(key="fvu"))


def test_a_source_from_outside_fills_a_cache(tmp_path: Path):
    saelab.register("source", "lines", Lines)
    cache = saelab.Cache.write(tmp_path / "cache", "lines", n_contexts=40)
    assert cache.hooks == ["line"] and cache.n_tokens() > 0
    with pytest.raises(UsageError, match="there is a source 'lines' already"):
        saelab.register("source", "lines", Lines)
    with pytest.raises(UsageError, match="there is a source 'text' already"):
        saelab.register("source", "text", Lines)


def test_a_format_from_outside_is_loaded(tmp_path: Path):
    small = saelab.SAE(4, 8, saelab.Choice(2))
    row = saelab.Format("small", "small.sae", lambda p: p.suffix == ".sae", lambda p: small)
    saelab.register("format", row)
    (tmp_path / "small.sae").touch()
    assert saelab.SAE.load(tmp_path / "small.sae") is small
    with pytest.raises(UsageError, match="there is a format 'small' already"):
        saelab.register("format", row)


def test_a_run_whose_sae_is_of_a_format_from_outside_is_found(tmp_path: Path):
    small = saelab.SAE(4, 8, saelab.Choice(2))
    folder = tmp_path / "small" / "sae"
    folder.mkdir(parents=True)
    (folder / "weights.small").touch()
    (tmp_path / "none" / "sae").mkdir(parents=True)
    assert find([tmp_path]) == {}
    holds = lambda path: (path / "weights.small").is_file()  # noqa: E731
    saelab.register("format", saelab.Format("small", "weights.small", holds, lambda path: small))
    assert find([tmp_path]) == {"small": tmp_path / "small"}
    assert saelab.SAE.load(tmp_path / "small") is small
    assert "an SAE of another form" in repr(saelab.RunFolder(tmp_path / "small"))
    assert "no SAE yet" in repr(saelab.RunFolder(tmp_path / "none"))


def test_the_example_of_register_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder().find(saelab.register, globs={})
    assert example.examples and doctest.DocTestRunner().run(example).failed == 0
    assert "twice_l0" in rows.table()


@pytest.mark.parametrize(
    ("what", "message"),
    [
        (("metric",), "takes its row, a saelab.Metric: 0 arguments are given"),
        (("metric", METRIC, METRIC), "a saelab.Metric: 2 arguments are given"),
        (("metric", {"key": "mine"}), "is a dict: a saelab.Metric is right"),
        (("metric", METRIC._replace(statistic=3)), "statistic of mine is 3: a function"),
        (("metric", METRIC._replace(short="mine " * 4)), "has 20 characters of at most 16"),
        (("source", "noise"), "takes its name and a function that makes it: 1 arguments"),
        (("source", Lines, "lines"), "a word and a function that gives a Source are right"),
        (("format", "small"), "'small' is a str: a saelab.Format is right"),
        (("format", saelab.Format("small", "", None, None)), "must be functions"),
    ],
)
def test_what_a_kind_does_not_take_is_refused_at_the_door(what: tuple, message: str):
    with pytest.raises(UsageError, match=message):
        saelab.register(*what)
    assert "mine" not in rows.table() and "small" not in formats.FORMATS


def test_another_kind_is_refused():
    with pytest.raises(UsageError, match="no kind 'page' to register; there are metric, source"):
        saelab.register("page", "mine")
