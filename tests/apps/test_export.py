"""`saelab export` of what a run holds beside its SAE, through the command line."""

import json
from pathlib import Path

import pytest

from apps.cli import main
from apps.cli.common import megabytes
from saelab.files import write_json
from tests import toy_index as toy
from tests.conftest import HOOK
from tests.schemas import check


def export(capsys: pytest.CaptureFixture, run: Path, to: str, out: Path, *more: object):
    """Exit code, names of the files, last line on standard error."""
    capsys.readouterr()
    code = main(["export", str(run), "--to", to, "--out", str(out), *map(str, more), "--json"])
    printed = capsys.readouterr()
    document = json.loads(printed.out) if printed.out else {"files": []}
    if code == 0:
        check(document, "export")
    last = (printed.err.strip().splitlines() or [""])[-1]
    return code, [file["file"] for file in document["files"]], last


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A toy SAE with its index and its report."""
    run = tmp_path / "toy-run"
    toy.sae().save(run / "sae")
    toy.build(run / "features.db")
    write_json(run / "report.json", toy.REPORT)
    return run


def test_dashboards_are_named_after_the_run(run: Path, tmp_path: Path, capsys):
    code, files, _ = export(capsys, run, "sae_dashboard", tmp_path / "a")
    assert code == 0
    assert files == ["batch-0.json", "run_settings.json", "skipped_indexes.json"]
    batch = json.loads((tmp_path / "a" / "batch-0.json").read_text())
    assert (batch["model_id"], batch["sae_set"]) == ("toy", "toy-run")
    names = ["--model-id", "gpt2-small", "--set", "res-mine"]
    code, files, _ = export(capsys, run, "neuronpedia", tmp_path / "b", *names)
    assert code == 0 and "exports/gpt2-small/1-res-mine/source.jsonl" in files
    assert "upload/batch-0.json" in files


def test_dashboards_of_chosen_features_hold_those_and_their_size_is_said_first(
    run: Path, tmp_path: Path, capsys
):
    for form, batch in (("sae_dashboard", "batch-0.json"), ("neuronpedia", "upload/batch-0.json")):
        out = tmp_path / form
        words = ["export", str(run), "--to", form, "--out", str(out), "--features", "1,3-4"]
        assert main(words) == 0
        told = capsys.readouterr().err
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
        assert f"3 features that fired, about {megabytes(size)}" in told  # all are in the sample
        key = "feature_index" if form == "sae_dashboard" else "index"
        rows = json.loads((out / batch).read_text())["features"]
        assert [row[key] for row in rows] == [1, 3, 4]
        for words, said in ((f"{toy.F}", "there is no"), (f"{toy.DEAD}", "none of these features")):
            code, _, last = export(capsys, run, form, tmp_path / "b", "--features", words)
            assert code == 2 and said in last and not (tmp_path / "b").exists()


def test_a_report_is_written_as_saebench_names_its_results(run: Path, tmp_path: Path, capsys):
    code, files, _ = export(capsys, run, "saebench", tmp_path / "a")
    assert code == 0 and files == ["core/toy-run_custom_sae_eval_results.json"]
    result = json.loads((tmp_path / "a" / files[0]).read_text())
    assert result["eval_type_id"] == "core" and result["sae_lens_release_id"] == "toy-run"


def test_what_is_not_there_or_cannot_be_named_is_refused(run: Path, tmp_path: Path, capsys):
    out = tmp_path / "out"
    code, _, last = export(capsys, run, "neuronpedia", out, "--set", "my set")
    assert code == 2 and "'my set' is no name for Neuronpedia" in last
    (run / "report.json").unlink()
    code, _, last = export(capsys, run, "saebench", out)
    assert code == 2 and "run `saelab eval" in last
    (run / "features.db").unlink()
    code, _, last = export(capsys, run, "sae_dashboard", out)
    assert code == 2 and "saelab index" in last
    assert not out.exists()


def test_delphi_gets_a_folder_of_the_hook(tiny_run: Path, tmp_path: Path, capsys):
    code, files, _ = export(capsys, tiny_run, "delphi", tmp_path / "a", "--tokens", "1k")
    assert code == 0 and len(files) == 6 and f"latents/{HOOK}/config.json" in files
    code, _, last = export(capsys, tiny_run, "delphi", tmp_path / "b", "--cache", tmp_path)
    assert code == 2 and "cache" in last and not (tmp_path / "b").exists()
