"""A metric is one row: report, schema, command and browser have it as soon as it is registered."""

import json
import re
from pathlib import Path

import pytest

from apps.browser import tables
from apps.cli import main
from saelab.errors import UsageError
from saelab.evaluation import rows
from saelab.evaluation.rows import Metric
from tests.schemas import SCHEMAS, check, lacking


@pytest.fixture
def pairs(monkeypatch) -> Metric:
    """A metric from outside, gone after the test."""
    monkeypatch.setattr(rows, "_ROWS", rows.table())
    row = Metric(
        "pairs_a_document",
        "pairs a document",
        "pairs",
        "pairs that fire, over documents",
        "none",
        lambda sums: sums["l0"] / 10,
        "zero",
        headline=True,
    )
    rows.register(row)
    return row


def test_a_metric_from_outside_is_measured_printed_and_shown(
    pairs: Metric, tiny_run: Path, tmp_path: Path, capsys
):
    import shutil

    run = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["eval", str(run), "--tokens", "600", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    check(report, "report")
    field, tokens = report[pairs.key], report["tokens"]
    assert field["value"] == pytest.approx(report["l0"]["value"] * tokens / 10)
    assert field["null"] == 0 and field["low"] <= field["value"] <= field["high"]
    assert report["references"]["pca"][pairs.key]["value"] == pytest.approx(4 * tokens / 10)
    assert main(["eval", str(run), "--tokens", "600"]) == 0
    printed = capsys.readouterr().out
    assert "pairs a document" in printed and f"{field['value']:.4f}" in printed
    html = tables.report(report, "run")
    assert "pairs a document" in html and pairs.help in html


def test_a_metric_that_nobody_here_knows_is_shown_by_its_key():
    report = {
        "fvu": {"value": 0.1, "low": 0.0, "high": 0.2, "null": 1.0},
        "odd_one": {"value": 0.777, "low": None, "high": None, "null": None},
        "tokens": 5,
        "references": {},
    }
    assert [row.key for row in rows.of(report)] == ["fvu", "odd_one"]
    html = tables.report(report, "run")
    assert "odd one" in html and "0.777" in html


@pytest.mark.parametrize("key", ["fvu", "tokens", "references"])
def test_a_name_that_is_taken_is_refused(key: str, pairs: Metric):
    with pytest.raises(UsageError, match=f"reports have a field '{key}' already"):
        rows.register(pairs._replace(key=key))
    with pytest.raises(UsageError, match="'pairs_a_document' already"):
        rows.register(pairs)


def test_no_schema_lists_a_metric_and_report_json_names_every_other_field():
    assert set(SCHEMAS["report.json"]["properties"]) == set(rows.OTHER_FIELDS) - {"run"}
    for name in ("report.json", "reports.json"):
        words = set(re.findall(r'"(\w+)"', json.dumps(SCHEMAS[name])))
        assert not words & set(rows.table()), name


def test_a_report_without_one_of_the_metrics_is_caught():
    every = dict.fromkeys(rows.table(), 0)
    report = {**every, "references": {"pca": every}}
    assert lacking(report, "report") == lacking({"runs": [every], "seeds": []}, "reports") == []
    fewer = {key: 0 for key in every if key not in ("kl", "dead_fraction")}
    assert lacking({**fewer, "references": {}}, "report") == ["dead_fraction", "kl"]
    assert lacking({**every, "references": {"pca": fewer}}, "report") == ["kl"]
    assert lacking({**every, "references": {}, "controls": {"x": fewer}}, "report") == ["kl"]
    assert lacking({"runs": [every], "seeds": [fewer]}, "reports") == ["dead_fraction", "kl"]


def test_what_a_row_says_can_be_shown():
    for row in rows.table().values():
        assert len(row.short) <= 16 and len(row.label) <= 29 and row.help and row.statistic.__doc__
