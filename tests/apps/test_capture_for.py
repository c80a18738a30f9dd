"""`saelab capture --for RUN`: an imported run gets its cache, and every later verb needs no
repetition."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from apps.cli import main
from saelab import SAE, formats
from saelab.activations import Cache
from saelab.origin import Identity
from tests.apps.test_import import verb
from tests.conftest import HOOK, SECOND_HOOK, make_model


@pytest.fixture
def theirs(tiny_run: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> Path:
    """A folder of SAELens that says its model, hook, text, context and BOS, and nothing of our
    caches."""
    sae = SAE.load(tiny_run)
    said = {"context_size": 16, "prepend_bos": False, "dataset_path": str(tiny_corpus)}
    more = {**said, "exclude_special_tokens": True}
    sae.origin = replace(sae.origin, model=Identity(str(tiny_model)), more=more)
    formats.save(sae, tmp_path / "theirs", "saelens")
    return tmp_path / "theirs"


def imported(theirs: Path, *options: object) -> Path:
    out = theirs.with_name("run")
    assert main(["import", str(theirs), "--out", str(out), *map(str, options)]) == 0
    return out


def test_import_capture_eval_index_with_nothing_repeated(theirs: Path, tmp_path: Path, capsys):
    run = imported(theirs)
    assert f"next: saelab capture --for {run}" in capsys.readouterr().out
    before = (run / "sae" / "sae.safetensors").read_bytes()
    code, _, last = verb(capsys, "eval", run, "--tokens", "500")
    assert code == 2 and f"has no cache: `saelab capture --for {run}` makes one" in last
    code, document, _ = verb(capsys, "capture", "--for", run, "--tokens", "4k")
    assert code == 0 and document["run"] == str(run) and document["assumed"] == []
    plan = Cache(run / "cache").plan
    assert list(plan.hooks) == [HOOK] and plan.context == 16
    assert plan.bos is None and plan.uncounted == "special"
    origin = SAE.load(run).origin
    assert origin.cache == "cache" and origin.model is not None and origin.model.known
    assert (run / "sae" / "sae.safetensors").read_bytes() == before
    assert main(["eval", str(run), "--tokens", "500"]) == 0
    assert main(["index", str(run), "--tokens", "500"]) == 0
    moved = run.rename(tmp_path / "moved")  # the cache lies in the run, and is found from it
    assert main(["eval", str(moved), "--tokens", "500"]) == 0
    assert main(["info", str(moved), "--verify"]) == 0


def test_a_cache_of_another_model_is_refused_by_name(theirs: Path, tmp_path: Path, capsys):
    run = imported(theirs)
    assert verb(capsys, "capture", "--for", run, "--tokens", "2k")[0] == 0
    other = make_model(tmp_path / "other", seed=1)
    line = ["capture", "--for", run, "--tokens", "2k", "--out", tmp_path / "another"]
    code, _, last = verb(capsys, *line, "--model", other)
    assert code == 2 and f"{other} is another: they differ in weights" in last
    assert not (tmp_path / "another").exists()
    assert main(["capture", "--model", str(other), *map(str, ["--hook", HOOK, *line[3:]])]) == 0
    code, _, last = verb(capsys, "eval", run, "--cache", tmp_path / "another")
    assert code == 2 and f"was made by {other}, not by" in last and "weights" in last


def test_the_command_line_beats_the_run(theirs: Path, tiny_run: Path, capsys):
    run = imported(theirs)
    options = ["--bos", "0", "--context", "8", "--uncounted", "none", "--hook", SECOND_HOOK]
    code, document, _ = verb(capsys, "capture", "--for", run, "--tokens", "2k", *options)
    assert code == 0 and document["hooks"] == [SECOND_HOOK]
    plan = Cache(run / "cache").plan
    assert (plan.context, plan.bos, plan.uncounted) == (8, 0, "")
    assert SAE.load(run).origin.hooks == (SECOND_HOOK, SECOND_HOOK)


def test_what_nobody_says_is_asked_for_or_told(theirs: Path, tiny_model: Path, capsys):
    cfg = json.loads((theirs / "cfg.json").read_text())
    said = {"sae_lens_version": "6.0.0", "dataset_path": "org/pile", "seqpos_slice": [5, None]}
    (theirs / "cfg.json").write_text(json.dumps({**cfg, "metadata": said}))
    run = imported(theirs)
    code, _, last = verb(capsys, "eval", run)
    assert code == 2 and f"`saelab capture --for {run} --model M --hook H` makes a cache" in last
    code, _, last = verb(capsys, "capture", "--for", run)
    assert code == 2 and "does not say its model (--model M) and hook (--hook H)" in last
    line = ["capture", "--for", run, "--tokens", "1k", "--model", tiny_model, "--hook"]
    code, _, last = verb(capsys, *line, "blocks.1.mlp.hook_post")
    assert code == 2 and "is 128 wide, the SAE of" in last and "reads 32" in last
    code, document, _ = verb(capsys, *line, HOOK)
    contexts, bos, text, positions = document["assumed"]
    assert code == 0 and "--context" in contexts and "--bos" in bos
    assert "org/pile, which it was trained on, is not here" in text and "[5, None]" in positions
    assert main(["eval", str(run), "--tokens", "200"]) == 0


def test_a_transcoder_gets_both_places(tiny_model: Path, tiny_corpus: Path, tmp_path, capsys):
    sae = SAE(32, 64, formats.sparsify.Choice(4), transcoder=True)
    formats.save(sae, tmp_path / "theirs", "sparsify")
    run = imported(tmp_path / "theirs", "--model", tiny_model)
    line = ["capture", "--for", run, "--tokens", "1k", "--text", tiny_corpus, "--hook", HOOK]
    code, _, last = verb(capsys, *line)
    assert code == 2 and "is a transcoder: give --hook what it reads, then --hook what" in last
    code, document, _ = verb(capsys, *line, "--hook", SECOND_HOOK)
    assert code == 0 and document["hooks"] == [HOOK, SECOND_HOOK]
    assert SAE.load(run).origin.hooks == (HOOK, SECOND_HOOK)


def test_a_run_of_ours_keeps_its_places(tiny_run: Path, tmp_path: Path, theirs: Path, capsys):
    import shutil

    run = shutil.copytree(tiny_run, tmp_path / "ours")
    known = SAE.load(run).origin.more
    assert known["context_size"] == 32 and known["prepend_bos"] is True
    code, document, _ = verb(capsys, "capture", "--for", run, "--tokens", "2k")
    assert code == 0 and document["hooks"] == [HOOK]
    assert SAE.load(run).origin.cache == "cache"
    code, _, last = verb(capsys, "capture", "--for", theirs)
    assert code == 2 and f"`saelab import {theirs} --out RUN` makes one" in last
