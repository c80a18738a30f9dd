"""`saelab capture` as typed: results, estimates, and every bad input with its exit code and last
line."""

import json
import os
import shutil
from pathlib import Path

import pytest

from apps.cli import main
from saelab import locks
from saelab.activations import Cache
from saelab.files import write_json
from tests.conftest import HOOK, SECOND_HOOK, make_model


@pytest.fixture
def command(tiny_model: Path, tiny_corpus: Path, tmp_path: Path):
    """Runs a small capture into tmp_path/c with some options replaced; a list repeats an option."""

    def run(**options) -> int:
        asked = {
            "model": tiny_model,
            "text": tiny_corpus,
            "hook": "blocks.0.hook_resid_post",
            "tokens": "4k",
            "out": tmp_path / "c",
        }
        argv = ["capture"]
        for name, value in (asked | options).items():
            for one in value if isinstance(value, list) else [value]:
                argv += [f"--{name.replace('_', '-')}"] + ([] if one is True else [str(one)])
        return main(argv)

    return run


def test_a_capture_writes_a_cache_and_says_what_is_in_it(
    command, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert (
        command(
            hook=["blocks.0.hook_resid_post", "blocks.1.attn.hook_z"], json=True, gradients=True
        )
        == 0
    )
    result = json.loads(capsys.readouterr().out)
    cache = Cache(tmp_path / "c")
    assert cache.hooks == result["hooks"] == [HOOK, SECOND_HOOK]
    assert result["schema"] == "saelab/capture/1" and result["positions"] == 4000
    assert result["tokens"] == {split: cache.n_tokens(split) for split in ("train", "held_out")}
    assert sum(result["tokens"].values()) == 4000 * 31 // 32
    grads = next(cache.batches(["blocks.0.hook_resid_post.grad", "blocks.1.attn.hook_z"], 64))
    assert {name: tuple(batch.shape) for name, batch in grads.items()} == {
        "blocks.0.hook_resid_post.grad": (64, 32),
        "blocks.1.attn.hook_z": (64, 32),
    }


def test_a_finished_capture_says_that_nothing_is_left(command, capsys: pytest.CaptureFixture):
    assert command() == 0
    assert "nothing to do" not in capsys.readouterr().out
    assert command() == 0
    assert "nothing to do: this cache was complete" in capsys.readouterr().out


def test_a_text_that_ends_early_is_said_to(command, capsys: pytest.CaptureFixture):
    assert command(tokens="1M") == 0
    assert "of the 1,000,000 positions asked for" in capsys.readouterr().out


def test_the_estimate_is_what_the_capture_takes_and_writes_nothing(
    command, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert command(dry_run=True, json=True) == 0
    guess = json.loads(capsys.readouterr().out)
    assert not (tmp_path / "c").exists()
    assert command() == 0
    written = sum(path.stat().st_size for path in (tmp_path / "c").iterdir())
    assert guess["bytes"] == pytest.approx(written, rel=0.05)
    assert 0 < guess["seconds"] < 60 and guess["peak_memory_bytes"] > guess["bytes"]


def test_the_last_place_is_kept_for_a_split_that_has_nothing(command, tmp_path: Path):
    assert command(tokens=64) == 0
    cache = Cache(tmp_path / "c")
    assert (cache.n_tokens("train"), cache.n_tokens("held_out")) == (31, 31)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"hook": "blocks.7.hook_out"}, "has no hook 'blocks.7.hook_out'; nearest: blocks."),
        (
            {"hook": "blocks.0.attn.hook_pattern"},
            "only hooks with a float vector per position can be cached",
        ),
        ({"hook": []}, "no hook named: --hook NAME"),
        ({"tokens": "many"}, "'many' is no whole number such as 2000000, 500k or 2M"),
        ({"tokens": 40}, "tokens=40 is less than two contexts of 32"),
        ({"context": 33}, "context=33 must lie between 2 and the model's 32"),
        ({"context": 0}, "context=0: give a whole number of at least 2"),
        ({"dtype": "int4"}, "int4"),
        ({"text": "missing.txt"}, "no such text file or folder: missing.txt"),
        ({"model": "/no/such/folder"}, "unknown model '/no/such/folder': no such folder"),
        ({"colour": "red"}, "--colour"),
    ],
)
def test_a_wrong_option_ends_with_code_2_and_one_clear_line(
    command, options: dict, words: str, capsys: pytest.CaptureFixture
):
    assert command(**options) == 2
    said = capsys.readouterr()
    assert (
        words in said.err.splitlines()[-1]
        and said.err.startswith("saelab capture: ")
        and not said.out
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.txt", b"", "empty.txt holds no text"),
        ("latin.txt", b"caf\xe9", "latin.txt is not UTF-8: byte 0xe9 at offset 3"),
        ("field.json", b'[{"story": "x"}]', "its fields are story (--text-field)"),
        (
            "short.txt",
            b"too short",
            "short.txt is one document, and neither side of the split may be empty",
        ),
    ],
)
def test_a_wrong_text_ends_with_code_2(
    command, tmp_path: Path, name: str, content: bytes, words: str, capsys
):
    (tmp_path / name).write_bytes(content)
    assert command(text=tmp_path / name) == 2
    assert words in capsys.readouterr().err.splitlines()[-1]
    assert not (tmp_path / "c").exists()


def test_the_named_text_field_is_read(command, tmp_path: Path):
    records = [{"story": f"story {i} " + "word " * 20} for i in range(60)]
    (tmp_path / "field.json").write_text(json.dumps(records))
    assert command(text=tmp_path / "field.json", text_field="story") == 0
    assert Cache(tmp_path / "c").document_names()[3] == "field.json#3"


def test_an_occupied_folder_and_other_settings_are_refused(
    command, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    occupied = tmp_path / "other"
    occupied.mkdir()
    (occupied / "model.safetensors").write_bytes(b"someone's weights")
    with monkeypatch.context() as without:
        without.setattr("saelab.models.load", None)  # refused before a model is loaded
        assert command(out=occupied) == 2
    assert "exists and is no cache: choose another --out" in capsys.readouterr().err
    assert (occupied / "model.safetensors").read_bytes() == b"someone's weights"
    assert command() == 0
    assert command(dtype="float32", tokens="5k") == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert (
        "holds a cache of other settings (asked / held): n_tokens: 5000 / 4000, dtype: 'float32' "
        "/ 'float16'" in said
    )


def test_another_model_is_refused(command, tmp_path: Path, capsys: pytest.CaptureFixture):
    assert command() == 0
    assert command(model=make_model(tmp_path / "other", seed=1)) == 2
    assert (
        "holds a cache of other settings (asked / held): model: "
        in capsys.readouterr().err.splitlines()[-1]
    )


def unfinished(folder: Path) -> dict:
    """Takes the end of a finished cache away; returns its manifest."""
    manifest = json.loads((folder / "manifest.json").read_text())
    write_json(folder / "manifest.json", {**manifest, "complete": False, "documents": None})
    (folder / "documents.json").unlink()
    return manifest


def test_text_that_changed_between_kill_and_resume_is_noticed(
    command, tiny_corpus: Path, tmp_path: Path, capsys
):
    text = Path(shutil.copytree(tiny_corpus, tmp_path / "text"))
    assert command(text=text) == 0
    unfinished(tmp_path / "c")
    assert command(text=text) == 0
    unfinished(tmp_path / "c")
    for path in text.iterdir():
        path.write_text(path.read_text().replace("alpha", "omega"))
    assert command(text=text) == 1
    assert "is not what it was when" in capsys.readouterr().err.splitlines()[-1]


def test_text_that_changed_since_the_capture_ended_is_noticed_wherever_it_lies(
    command, tiny_corpus: Path, tmp_path: Path, capsys
):
    text = Path(shutil.copytree(tiny_corpus, tmp_path / "text"))
    assert command(text=text) == 0
    text = text.rename(tmp_path / "moved")
    assert command(text=text) == 0
    assert "nothing to do" in capsys.readouterr().out
    for path in text.iterdir():
        path.write_text(path.read_text().replace("alpha", "omega"))
    assert command(text=text) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'c'} holds another text: {text} is not what it was when" in said


def test_a_capture_into_a_folder_that_another_process_writes_is_refused(
    command, tmp_path: Path, capsys
):
    with locks.only_writer(tmp_path / "c"):
        assert command() == 2
    assert f"is being written by process {os.getpid()} on" in capsys.readouterr().err
    assert command() == 0
    with locks.only_writer(tmp_path / "c"):
        assert command() == 0  # which only reads a finished one


def test_a_damaged_shard_of_an_unfinished_capture_is_named(
    command, tmp_path: Path, capsys: pytest.CaptureFixture
):
    assert command() == 0
    unfinished(tmp_path / "c")
    shard = tmp_path / "c" / "00000.safetensors"
    shard.write_bytes(shard.read_bytes()[:-9])
    assert command() == 1
    assert "00000.safetensors of" in capsys.readouterr().err.splitlines()[-1]


def test_what_a_kill_leaves_behind_is_cleared(command, tmp_path: Path):
    folder = tmp_path / "c"
    assert command() == 0
    whole = {path.name: path.read_bytes() for path in folder.iterdir()}
    unfinished(folder)
    for name in ("moments-00000.safetensors", "00009.safetensors", ".00001.safetensors.123.tmp"):
        (folder / name).write_bytes(b"left behind")
    assert command() == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == whole
