"""The verbs one by one on the tiny model: what they print is what they wrote, and the documents
follow their schema."""

import errno
import json
import os
import shutil
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.cli import main
from saelab import SAE
from tests.conftest import HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def run(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the session's run that verbs may write to."""
    return Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("verbs") / "run"))


def printed(capsys: pytest.CaptureFixture) -> dict:
    """The JSON document on standard output."""
    return json.loads(capsys.readouterr().out)


def test_train_reads_a_recipe_that_the_command_line_overrides(
    tiny_cache: Path, tmp_path: Path, capsys
):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"hook: {HOOK}\nfeatures: 64\nk: 4\ntokens: 5000\nbatch: 250\nlr: 1e-3\n")
    out = tmp_path / "run"
    assert (
        main(
            [
                "train",
                str(recipe),
                "--cache",
                str(tiny_cache),
                "--out",
                str(out),
                "--k",
                "3",
                "--json",
            ]
        )
        == 0
    )
    result = printed(capsys)
    assert result["schema"] == "saelab/train/1" and result["step"] == 20 and result["l0"] == 3
    assert sorted(p.name for p in out.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "metrics.jsonl",
        "sae",
        "training.json",
    ]
    assert SAE.load(out).sparsify.k == 3


def test_eval_writes_the_report_it_prints(run: Path, capsys):
    assert main(["eval", str(run), "--tokens", "1000", "--json"]) == 0
    result = printed(capsys)
    assert result == json.loads((run / "report.json").read_text())
    check(result, "report")
    assert main(["eval", str(run), "--tokens", "1000"]) == 0
    table = capsys.readouterr().out
    assert f"{result['fvu']['value']:.4f}" in table and "identity" in table


def test_a_run_that_nobody_may_write_still_gives_its_result(
    run: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    def refuse(path: Path, value: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr("saelab.files.write_json", refuse)
    assert main(["eval", str(run), "--tokens", "1000", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["schema"] == "saelab/report/1"
    assert shown.err.splitlines() == [f"{run}/report.json could not be written: Permission denied"]
    monkeypatch.setattr("os.access", lambda *_: False)
    assert main(["index", str(run)]) == 2
    assert f"{run} cannot be written, where the index belongs" in capsys.readouterr().err


def test_index_finds_every_feature_in_a_run_compared_with_itself(run: Path, tiny_run: Path, capsys):
    assert main(["index", str(run), "--compare", str(tiny_run), "--tokens", "5k", "--json"]) == 0
    result = printed(capsys)
    assert (run / "features.db").exists()
    assert result["n_features"] == 64 and result["others"][0]["share"] == 1.0


def wandb_history(path: Path) -> Iterator[dict]:
    """The logged rows of an offline run: a LevelDB log (7 bytes of header, blocks of 32 KiB) of
    protobuf records."""
    from wandb.proto import wandb_internal_pb2

    data, at, whole = path.read_bytes(), 7, b""
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # the rest of a block is padding
            at += 32768 - at % 32768
            continue
        length, kind = struct.unpack_from("<HB", data, at + 4)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            record = wandb_internal_pb2.Record.FromString(whole)
            whole = b""
            if record.history.item:
                yield {
                    item.key or item.nested_key[0]: json.loads(item.value_json)
                    for item in record.history.item
                }


def test_training_logs_to_weights_and_biases_offline(
    tiny_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delenv("WANDB_MODE", raising=False)
    monkeypatch.setenv("WANDB_SILENT", "true")
    out = tmp_path / "run"
    options = [
        "--features",
        "64",
        "--k",
        "4",
        "--tokens",
        "5000",
        "--batch",
        "250",
        "--log-every",
        "5",
        "--wandb",
    ]
    assert (
        main(["train", "--cache", str(tiny_cache), "--out", str(out), "--hook", HOOK, *options])
        == 0
    )
    (log,) = out.glob("wandb/offline-run-*/*.wandb")
    logged = {row["_step"]: row["fvu"] for row in wandb_history(log)}
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert logged == {row["step"]: row["fvu"] for row in rows}
