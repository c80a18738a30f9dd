"""A model that predicts no tokens is captured and trained on; what reads losses is absent, and said
why, in report, table and page."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch
import transformers

from apps.browser import tables
from apps.cli import main
from saelab import models
from saelab.activations import Cache
from saelab.analysis.dark_matter.report import analyse
from saelab.errors import UsageError
from saelab.evaluation import rows
from saelab.features.build import build
from tests.conftest import HOOK, make_cache, make_run
from tests.schemas import check

LOSSES = [key for key, row in rows.table().items() if row.source == "prediction"]


@pytest.fixture(scope="module")
def headless(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BERT, saved without the head that predicts masked tokens."""
    folder = tmp_path_factory.mktemp("headless")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=257, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, max_position_embeddings=32,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(tiny_model / file, folder)
    return folder


@pytest.fixture(scope="module")
def run(headless: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on that model."""
    folder = tmp_path_factory.mktemp("runs")
    return make_run(make_cache(headless, tiny_corpus, folder / "cache"), folder / "run")


def test_a_report_without_losses_says_why(run: Path, capsys: pytest.CaptureFixture):
    assert main(["eval", str(run), "--tokens", "1000", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    check(report, "report")
    reason = report["no_losses"]
    assert reason.startswith("it has no head that predicts tokens: its files lack cls.predictions")
    for fields in (report, *report["references"].values()):
        assert not set(LOSSES) & fields.keys() and fields["fvu"]["value"] is not None
    assert not any(key.startswith("ce_") for key in report)
    assert main(["eval", str(run), "--tokens", "1000"]) == 0
    printed = capsys.readouterr().out
    assert f"no losses of the model: {reason}" in printed and "CE recovered" not in printed
    page = tables.report(report, "run")
    assert f"No losses of the model: {reason}" in page and "CE recovered" not in page


def test_a_report_that_lacks_losses_without_a_reason_is_no_report(run: Path, capsys):
    assert main(["eval", str(run), "--tokens", "1000", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    del report["no_losses"]
    with pytest.raises(jsonschema.ValidationError):
        check(report, "report")


def test_several_runs_are_shown_beside_one_that_has_losses(
    run: Path, tiny_run: Path, tmp_path: Path, capsys
):
    other = shutil.copytree(tiny_run, tmp_path / "run")
    assert main(["eval", str(run), str(other), "--tokens", "1000"]) == 0
    printed = capsys.readouterr().out
    assert "CE recovered" in printed and f"{run}: no losses of the model: it has no" in printed


def test_what_needs_predictions_refuses_the_model(headless: Path, run: Path, tiny_corpus, tmp_path):
    model = models.load(headless)
    with pytest.raises(UsageError, match="has no losses: it has no head"):
        make_cache(headless, tiny_corpus, tmp_path / "cache", gradients=True)
    assert not (tmp_path / "cache").exists()
    with pytest.raises(UsageError, match="has no losses: it has no head"):
        analyse({}, Cache(run.parent / "cache"), model)


def test_features_of_a_model_without_a_head_promote_no_tokens(run: Path, tmp_path: Path):
    from saelab import opening

    _, sae, cache, model = opening.open(run)
    summary = build(
        sae, cache, HOOK, tmp_path / "features.db", tokenizer=model.tokenizer, model=model
    )
    assert summary["n_features"] == 64


def test_unread_weights_are_told_and_recorded(headless: Path, run: Path, tmp_path: Path, capsys):
    manifest = json.loads((run.parent / "cache" / "manifest.json").read_text())
    assert manifest["model"]["unread"] == ["pooler.dense.bias", "pooler.dense.weight"]
    argv = ["capture", "--model", str(headless), "--text", str(tmp_path), "--hook", HOOK]
    (tmp_path / "text.txt").write_text("words " * 400)
    (tmp_path / "more.txt").write_text("others " * 400)
    assert main([*argv, "--tokens", "1000", "--context", "16", "--dry-run"]) == 0
    told = "left unread, the model has no place for them: pooler.dense.bias, pooler.dense.weight"
    assert told in capsys.readouterr().err.splitlines()
