"""Messages name the damaged file, and what cannot be measured is no number."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import training
from apps.cli import common, report_tables
from saelab.activations import Cache
from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from training.record import Record
from training.scale import scale_of


def test_a_damaged_row_of_metrics_is_named_on_resume(tiny_run: Path, tmp_path: Path):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    whole = (run / "metrics.jsonl").read_text().splitlines()
    for row in ("{x", "[1]", "{}", '{"step": "one"}'):
        (run / "metrics.jsonl").write_text("\n".join([whole[0], row, ""]))
        with pytest.raises(FailedRun, match=r"line 2 of .*metrics\.jsonl is damaged"):
            Record(run, training.Config(), 100)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", "[]"),
        ("manifest.json", '{"schema": "saelab/cache/1"}'),
        ("manifest.json", "[" * 100_000),
        ("manifest.json", '{"a": ' + "9" * 5000 + "}"),
        ("manifest.json", "\ufeff{"),
    ],
)
def test_a_manifest_that_holds_something_else_is_named(
    tiny_cache: Path, tmp_path: Path, file: str, content: str
):
    folder = Path(shutil.copytree(tiny_cache, tmp_path / "cache"))
    (folder / file).write_text(content)
    with pytest.raises(FailedRun, match=r"manifest\.json (is damaged|lacks)"):
        Cache(folder)


def test_training_on_activations_that_do_not_vary_is_refused(tiny_cache: Path, tmp_path: Path):
    x_ND = torch.full((5000, 8), 1.1)
    with pytest.raises(UsageError, match="are the same at all of the first 5000 tokens"):
        scale_of(x_ND, x_ND)
    x_ND[0, 0] += 0.01
    assert scale_of(x_ND, x_ND).variance > 0
    cache = Cache.write(tmp_path / "c", "arrays", arrays=torch.ones(3000, 8))
    options = {"features": 16, "k": 2, "tokens": 1000, "batch": 100, "hook": cache.hooks[0]}
    config = training.Config(cache=str(cache.path), out=str(tmp_path / "run"), **options)
    with pytest.raises(UsageError, match="an SAE has nothing to learn there"):
        training.train(config)
    assert not (tmp_path / "run").exists()


def test_what_is_not_finite_is_null_in_a_document_and_a_dash_in_a_table(tmp_path: Path):
    nan = float("nan")
    document = common.document("a", 0, loss=nan, rows=[{"x": (nan, float("inf"), 1.5)}], name="nan")
    assert document["loss"] is None and document["rows"] == [{"x": [None, None, 1.5]}]
    assert document["name"] == "nan"
    write_json(tmp_path / "a.json", document)

    def refuse(word: str) -> None:
        raise ValueError(word)

    json.loads((tmp_path / "a.json").read_text(), parse_constant=refuse)
    nothing = {"value": None, "low": None, "high": None, "null": None}
    table = report_tables.beside("references", {"zero": dict.fromkeys(_keys(), nothing)})
    assert table.splitlines()[-1].split()[1:] == ["-"] * (len(table.splitlines()[-1].split()) - 1)


def _keys() -> list[str]:
    from saelab.evaluation import rows

    return list(rows.table())


def test_a_damaged_row_of_metrics_is_named_on_the_page_and_by_train(tmp_path: Path, monkeypatch):
    from apps.browser import PLACES
    from tests import toy_index
    from tests.apps.pages import opened_page
    from training import rate

    run = toy_index.make_run(tmp_path / "toy")
    whole = (run / "metrics.jsonl").read_text()
    assert len(rate.rows(run)) == 20  # the last one is half written
    (run / "metrics.jsonl").write_text(whole.replace('"step": 3,', '"step" 3,'))
    with pytest.raises(FailedRun, match=r"line 4 of .*metrics\.jsonl is damaged"):
        rate.rows(run)
    monkeypatch.setenv(PLACES, json.dumps([str(run)]))
    page = opened_page()
    shown = "".join(e.proto.body for e in page.main.children.values() if e.type == "html")
    assert "line 4 of " in shown


def test_a_damaged_config_of_a_model_is_named(tiny_model: Path, tmp_path: Path):
    from saelab import models

    folder = Path(shutil.copytree(tiny_model, tmp_path / "model"))
    (folder / "config.json").write_text((folder / "config.json").read_text()[:-9])
    with pytest.raises(FailedRun, match=r"config\.json is damaged, it is no JSON"):
        models.load(folder)
