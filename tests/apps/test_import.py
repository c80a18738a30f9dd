"""`saelab import` and `saelab export`: there and back through the command line, and what is
refused."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from apps.cli import main
from saelab import SAE, formats, opening, scaling
from saelab.files import write_json
from saelab.formats import hub, native
from saelab.formats.imported import digest
from saelab.runs import RunFolder
from tests.formats import other_files, saelens_files, scope_files
from tests.formats.measuring import expected, measured, off
from tests.schemas import check


def verb(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, dict, str]:
    """Exit code, document and last line on standard error."""
    capsys.readouterr()
    code = main([*map(str, words), "--json"])
    printed = capsys.readouterr()
    document = json.loads(printed.out) if printed.out else {}
    if document:
        check(document, str(words[0]))
    return code, document, (printed.err.strip().splitlines() or [""])[-1]


def test_a_published_sae_becomes_a_run(tmp_path: Path, capsys):
    file = saelens_files.saelens_topk_checkpoint(tmp_path / "theirs")
    code, document, _ = verb(capsys, "import", file.path, "--out", tmp_path / "run")
    assert (
        code == 0
        and document["format"] == "saelens"
        and document["hook"] == "blocks.1.hook_mlp_out"
    )
    assert document["file_hash"] == digest(file.path)
    assert document["applied"] == [
        "decoder rows scaled to unit norm",
        "inputs scaled by 1.7, folded",
    ]
    sae = SAE.load(tmp_path / "run")
    assert off(measured(sae)[0], expected(file)[0]) < 1e-5
    assert sae.origin.source == str(file.path) and sae.origin.file_hash == document["file_hash"]


def test_what_files_do_not_say_is_said_on_the_command_line(tmp_path: Path, capsys):
    file = scope_files.openai_topk(tmp_path / "theirs")
    line = ["import", file.path, "--out", tmp_path / "run"]
    unknown = verb(capsys, *line)[1]["unknown"]
    assert unknown[:2] == [
        "the model: --model says which",
        "the hook point that it reads: --hook says which",
    ]
    line[-1] = tmp_path / "second"
    code, document, _ = verb(capsys, *line, "--model", "gpt2", "--hook", "blocks.3.hook_resid_post")
    assert code == 0 and len(document["unknown"]) == 2
    origin = SAE.load(tmp_path / "second").origin
    assert origin.hooks == ("blocks.3.hook_resid_post",) * 2
    assert origin.model is not None and origin.model.name == "gpt2"


def test_a_check_finds_a_scale_that_is_not_said(
    tiny_run: Path, tiny_cache: Path, tmp_path: Path, capsys
):
    sae = SAE.load(tiny_run)
    formats.save(sae, tmp_path / "right", "saelens")
    scaling.fold(sae, 4.0)  # as if its inputs had been divided by 4, and nobody says so
    formats.save(sae, tmp_path / "scaled", "saelens")
    checks = {}
    for name in ("right", "scaled"):
        line = ["import", tmp_path / name, "--out", tmp_path / f"{name}-run"]
        code, document, _ = verb(capsys, *line, "--check", tiny_cache)
        checks[name] = document["check"]
        assert code == 0
    assert checks["right"]["l0"] == sae.origin.k == checks["right"]["recorded"]
    assert "input scale off by 4" in checks["scaled"]["wrong"]
    assert "input scale" not in checks["right"]["wrong"]


def test_one_of_many_is_selected(tmp_path: Path, capsys):
    other_files.sparsify(tmp_path / "theirs")
    other_files.sparsify_transcoder(tmp_path / "theirs")
    line = ["import", tmp_path / "theirs", "--out", tmp_path / "run"]
    code, _, last = verb(capsys, *line)
    assert code == 2 and "holds 2 SAEs" in last and not (tmp_path / "run").exists()
    code, document, _ = verb(capsys, *line, "--select", "layers.3.mlp")
    assert code == 0 and document["transcoder"] and document["target"] == "blocks.3.mlp.hook_out"
    line[-1] = tmp_path / "moved"  # what it explains stays, where only what it reads is said
    options = ["--select", "layers.3.mlp", "--hook", "blocks.3.ln2.hook_out"]
    _, document, _ = verb(capsys, *line, *options)
    assert document["hook"] == "blocks.3.ln2.hook_out"
    assert document["target"] == "blocks.3.mlp.hook_out"


@pytest.mark.parametrize("form", ["saelens", "dictionary_learning", "sparsify"])
def test_an_export_imported_is_the_run(form: str, tiny_run: Path, tmp_path: Path, capsys):
    code, document, _ = verb(capsys, "export", tiny_run, "--to", form, "--out", tmp_path / form)
    assert code == 0 and document["format"] == form
    assert len(document["files"]) == 2 + (form == "sparsify")
    code, _, _ = verb(capsys, "import", tmp_path / form, "--out", tmp_path / "run")
    assert code == 0
    ours, theirs = SAE.load(tiny_run), SAE.load(tmp_path / "run")
    x_BD = np.random.default_rng(0).normal(size=(32, ours.d_model)).astype(np.float32)
    assert np.array_equal(measured(ours, x_BD)[0], measured(theirs, x_BD)[0])


def test_what_cannot_be_written_leaves_nothing(tiny_run: Path, tmp_path: Path, capsys):
    line = ["export", tiny_run, "--to", "openai", "--out", tmp_path / "out"]
    code, _, last = verb(capsys, *line)
    assert code == 2 and "cannot be written as openai: a top-k there normalises" in last
    line[3] = "circuit_tracer"
    code, _, last = verb(capsys, *line)
    assert (code == 2 and "no transcoder of layer 0" in last) or "it is an autoencoder" in last
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    code, _, last = verb(capsys, "export", tiny_run, "--out", tmp_path / "out")
    assert code == 2 and "not empty" in last


def test_a_folder_that_is_not_empty_and_a_source_that_is_none_are_refused(tmp_path: Path, capsys):
    file = saelens_files.saelens_gated(tmp_path / "theirs")
    code, _, last = verb(capsys, "import", file.path, "--out", file.path)
    assert code == 2 and "is not empty: choose another --out" in last
    code, _, last = verb(capsys, "import", tmp_path / "none", "--out", tmp_path / "run")
    assert code == 2 and "there is no such folder" in last and not (tmp_path / "run").exists()
    code, _, last = verb(capsys, "import", "--out", tmp_path / "run")
    assert code == 2 and "nothing to import is named" in last


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The snapshot folder of a repository that the local cache of the hub holds."""
    import huggingface_hub.constants

    place = tmp_path / "hub" / "models--org--scope"
    (place / "refs").mkdir(parents=True)
    (place / "refs" / "main").write_text("c0ffee")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return place / "snapshots" / "c0ffee"


def test_a_hub_name_is_found_in_the_local_cache(repository: Path, tmp_path: Path, capsys):
    file = scope_files.gemma_scope(repository)
    inner = file.path.relative_to(repository)
    code, document, _ = verb(capsys, "import", f"hub:org/scope/{inner}", "--out", tmp_path / "run")
    assert code == 0 and document["source"] == f"hub:org/scope/{inner}"
    _, document, _ = verb(capsys, "info", f"hub:org/scope/{inner}")
    assert document["facts"]["next"][0] == f"saelab import hub:org/scope/{inner} --out RUN"
    assert off(measured(SAE.load(tmp_path / "run"))[0], expected(file)[0]) < 1e-5


def test_a_hub_that_does_not_answer_says_what_would_be_fetched(repository, tmp_path, capsys):
    line = ["--out", tmp_path / "run"]
    code, _, last = verb(capsys, "import", "hub:org/scope/layer_3", *line)
    assert code == 2 and "the hub is switched off" in last
    assert "layer_3 of org/scope would be fetched" in last
    code, _, last = verb(capsys, "info", "hub:org/scope/layer_3")
    assert code == 2 and "is not in the local cache of the hub: `saelab import` fetches it" in last
    code, _, last = verb(capsys, "import", "hub:org", *line)
    assert code == 2 and "names no repository" in last and hub.PREFIX in last


WHERE = {  # where each form keeps the length of a context
    "saelens": ("cfg.json", ("metadata", "context_size")),
    "sparsify": ("config.json", ("ctx_len",)),
    "dictionary_learning": ("config.json", ("buffer", "ctx_len")),
}


@pytest.mark.parametrize("form", WHERE)
@pytest.mark.parametrize("record", ["new", "old"])
def test_an_export_says_how_its_contexts_were_made(
    form: str, record: str, tiny_run: Path, tiny_corpus: Path, tiny_cache: Path, tmp_path, capsys
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    origin = replace(SAE.load(run).origin, cache=str(tiny_cache))
    if record == "old":  # which does not say it: its cache does
        origin = replace(origin, more={})
    native.rewrite_origin(run / "sae", origin)
    report = {"schema": "saelab/report/1", "l0": {"value": 3.5}}
    write_json(run / "report.json", {**report, "sae": RunFolder(run).sae_digest()})
    code, _, last = verb(capsys, "export", run, "--to", form, "--out", tmp_path / "theirs")
    assert code == 0, last
    file, keys = WHERE[form]
    written = json.loads((tmp_path / "theirs" / file).read_text())
    for key in keys:
        written = written[key]
    assert written == 32
    more = SAE.load(tmp_path / "theirs").origin.more
    assert more["context_size"] == 32
    if form != "dictionary_learning":
        assert more["dataset_path"] == str(tiny_corpus)
    if form == "saelens":
        assert more["prepend_bos"] is True and more["l0"] == 3.5


def test_an_export_of_an_import_does_not_take_a_later_cache_for_its_training(
    tiny_run: Path, tiny_cache: Path, tmp_path: Path
):
    run = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    origin = SAE.load(run).origin
    imported = replace(origin, cache=str(tiny_cache), more={}, source="hub:org/theirs")
    native.rewrite_origin(run / "sae", imported)
    assert "context_size" not in opening.told(run).origin.more
