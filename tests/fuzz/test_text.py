"""Damaged texts: read, or refused in one line that names the file; never another error."""

import random
from pathlib import Path

import pytest

from apps.cli import main
from saelab.activations.text import Text
from saelab.errors import UsageError
from saelab.textfiles import Skipped
from tests.conftest import HOOK
from tests.fuzz.mutate import damaged
from tests.textfiles.test_readers import SAME

N = 40  # inputs of each kind
KINDS = {**SAME, "plain.txt": "\n\n".join(["naïve 😀 text " * 40] * 9).encode()}


def outcome(path: Path) -> str:
    """`read`, or why not."""
    skipped = Skipped()
    try:
        for document in Text(str(path)).documents(skipped=skipped):
            document.text.encode()
    except UsageError as error:
        return str(error)
    return "read"


@pytest.mark.parametrize("name", KINDS)
def test_a_damaged_text_is_read_or_refused_by_name(tmp_path: Path, name: str):
    rng = random.Random(name)
    path = tmp_path / name
    outcomes = []
    for _ in range(N):
        path.write_bytes(damaged(KINDS[name], rng))
        outcomes.append(outcome(path))
    refused = [said for said in outcomes if said != "read"]
    assert all(name in said and "\n" not in said for said in refused), refused
    assert all(len(said) < len(str(path)) + 400 for said in refused)
    assert refused or name == "plain.txt", "nothing was refused: the damage is too mild"


def test_a_folder_of_damaged_texts_loses_only_them(tmp_path: Path):
    rng = random.Random(0)
    for number, name in enumerate(KINDS):
        (tmp_path / f"{number}{name}").write_bytes(damaged(KINDS[name], rng))
    (tmp_path / "whole.jsonl").write_bytes(SAME["a.jsonl"])
    skipped = Skipped()
    names = {one.name for one in Text(str(tmp_path)).documents(skipped=skipped)}
    assert {f"whole.jsonl#{i}" for i in range(4)} <= names
    assert 3 < len(skipped.files) < len(KINDS)


def test_a_damaged_folder_of_save_to_disk_is_read_or_refused_by_name(tmp_path: Path):
    import datasets

    folder, outcomes = tmp_path / "saved", []
    rows = {"text": ["one", "two", None, "three" * 50], "n": [1, 2, 3, 4]}
    datasets.Dataset.from_dict(rows).save_to_disk(str(folder))
    whole = {path: path.read_bytes() for path in sorted(folder.iterdir())}
    for seed in range(100):
        rng = random.Random(seed)
        bad = rng.choice([*whole])
        for path, raw in whole.items():
            path.write_bytes(damaged(raw, rng) if path == bad else raw)
        outcomes.append(outcome(folder))
    refused = [said for said in outcomes if said != "read"]
    assert len(refused) > 50 and all("saved" in said for said in refused)


@pytest.mark.parametrize("seed", range(12))
def test_a_capture_of_a_damaged_text_ends_in_one_line(
    tiny_model: Path, tmp_path: Path, seed: int, capsys: pytest.CaptureFixture
):
    rng = random.Random(seed)
    name = rng.choice(sorted(KINDS))
    path = tmp_path / name
    path.write_bytes(damaged(KINDS[name], rng))
    argv = ["capture", "--model", str(tiny_model), "--text", str(path), "--hook", HOOK]
    code = main([*argv, "--tokens", "64", "--context", "4", "--out", str(tmp_path / "c")])
    said = capsys.readouterr().err
    assert code in (0, 1, 2) and "Traceback" not in said
    assert code == 0 or (name in said.splitlines()[-1] and not (tmp_path / "c").exists())


def test_an_error_that_no_reader_expects_would_be_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("saelab.textfiles.opening.DAMAGE", (OSError,))
    path = tmp_path / "a.jsonl.xz"
    with pytest.raises(Exception, match=r".") as error:
        for seed in range(60):
            path.write_bytes(damaged(SAME["a.jsonl.xz"], random.Random(seed)))
            outcome(path)
    assert not isinstance(error.value, UsageError)
