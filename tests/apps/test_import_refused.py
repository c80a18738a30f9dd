"""`saelab import` of what is something else than it is said to be, or cannot be reached."""

import shutil
import socket
import time
from pathlib import Path

import pytest

from saelab import SAE
from tests.apps.test_import import repository, verb
from tests.formats import saelens_files, scope_files
from tests.formats.editing import edited
from tests.formats.measuring import expected, measured, off

__all__ = ["repository"]  # a fixture


def test_a_transcoder_is_no_sae_and_an_sae_no_transcoder(tmp_path: Path, capsys):
    path = saelens_files.saelens_skip_transcoder(tmp_path / "theirs").path
    line = ["--out", tmp_path / "run"]
    places = {"hook_name": "blocks.1.hook_mlp_in", "hook_name_out": "blocks.1.hook_mlp_out"}
    edited(path, architecture="jumprelu", metadata={"sae_lens_version": "6.0.0", **places})
    code, _, last = verb(capsys, "import", path, *line)
    assert code == 2 and "explains blocks.1.hook_mlp_out and its architecture is 'jumprelu'" in last
    path = saelens_files.saelens_finetuned_v4(tmp_path / "sae").path
    code, _, last = verb(capsys, "import", path, *line, "--target", "blocks.1.hook_mlp_out")
    assert code == 2 and "is an autoencoder, it subtracts from its input the bias" in last
    assert not (tmp_path / "run").exists()


def test_a_transcoder_that_its_files_do_not_call_one_is_told_by_its_target(tmp_path, capsys):
    file = scope_files.gemma_scope(tmp_path / "theirs")  # no path that names a repository
    path = Path(shutil.copytree(file.path, tmp_path / "moved"))
    places = ["--hook", "blocks.3.ln2.hook_normalized", "--target", "blocks.3.hook_mlp_out"]
    code, document, _ = verb(capsys, "import", path, "--out", tmp_path / "run", *places)
    assert code == 0 and document["transcoder"] and document["target"] == places[-1]
    assert off(measured(SAE.load(tmp_path / "run"))[0], expected(file)[0]) < 1e-5


@pytest.mark.parametrize("hook", ["blocks.1.hook_resid_post", "blocks.0.mlp.hook_post"])
def test_a_width_other_than_the_models_is_refused_before_anything_is_written(
    hook: str, tiny_model: Path, tmp_path: Path, capsys
):
    path = saelens_files.saelens_finetuned_v4(tmp_path / "theirs").path
    line = ["import", path, "--out", tmp_path / "run", "--model", tiny_model, "--hook", hook]
    code, _, last = verb(capsys, *line)
    width = 128 if hook.endswith("post") and "mlp" in hook else 32
    assert code == 2 and f"{hook} of {tiny_model} is {width} wide, the SAE has 6" in last
    assert not (tmp_path / "run").exists()
    line[-1] = "blocks.1.hook_of_another_kind"  # which only the loaded model could tell
    assert verb(capsys, *line)[0] == 0


def test_a_hub_that_never_answers_is_told_within_three_seconds(
    repository: Path, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
):
    import huggingface_hub.constants

    with socket.create_server(("127.0.0.1", 0)) as silent:  # takes the call and says nothing
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", address)
        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        began = time.perf_counter()
        code, _, last = verb(capsys, "import", "hub:org/scope/layer_3", "--out", tmp_path / "run")
        seconds = time.perf_counter() - began
        silent.setblocking(False)
        silent.accept()[0].close()  # it was asked
    assert code == 2 and seconds < 3
    assert "the hub is unreachable: layer_3 of org/scope would be fetched" in last
    assert not (tmp_path / "run").exists()
