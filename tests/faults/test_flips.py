"""Flipped bits and cuts are refused by the file's name or change nothing."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from tests.faults.flips import KINDS, Kind, run_verb, trials


@pytest.fixture(scope="module")
def place(tiny_cache: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a report, and its cache, that may be damaged."""
    folder = tmp_path_factory.mktemp("flips")
    shutil.copytree(tiny_cache, folder / "cache")
    shutil.copytree(tiny_run, folder / "run")
    run_verb("eval", folder / "run")
    return folder


def test_no_flip_or_cut_changes_a_result_in_silence(place: Path):
    counts = trials(place, 36, seed=1)
    assert sum(row["flip"] for row in counts.values()) >= 16
    assert all(row["refused"] + row["equal"] == row.total() / 2 == 4 for row in counts.values())


def test_readers_that_compare_no_digest_would_be_caught(place: Path):
    def unread(file: Path) -> object:
        return load_file(file) if file.suffix == ".safetensors" else json.loads(file.read_text())

    for name in ("sae weights", "checkpoint", "moments"):
        kind = next(kind for kind in KINDS if kind.name == name)
        (file,) = place.glob(kind.files)
        twin = Kind(name, kind.files, lambda _, file=file: unread(file))
        assert trials(place, 12, seed=1, kinds=[twin])[name]["different"] >= 5
