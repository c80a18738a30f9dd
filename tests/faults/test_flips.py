"""Flipped bits and cuts are refused by the file's name or change nothing."""

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from apps.cli import main
from saelab.files import write_json
from saelab.inspection import inspect
from tests.faults.flips import KINDS, MORE, Kind, run_verb, traces, trials


@pytest.fixture(scope="module")
def place(tiny_cache: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a report, and its cache, that may be damaged."""
    folder = tmp_path_factory.mktemp("flips")
    shutil.copytree(tiny_cache, folder / "cache")
    shutil.copytree(tiny_run, folder / "run")
    run_verb("eval", folder / "run", "--tokens", "500")
    return folder


def test_no_flip_or_cut_changes_a_result_in_silence(place: Path):
    counts = trials(place, 36, seed=1)
    assert sum(row["flip"] for row in counts.values()) >= 16
    assert all(row["refused"] + row["equal"] == row.total() / 2 == 4 for row in counts.values())


def test_graphs_and_circuits_are_documents_that_tell_a_flip(
    place: Path, capsys: pytest.CaptureFixture[str]
):
    traces(place, place / "run")
    write_json(place / "circuit" / "circuit.json", {"schema": "saelab/circuits/1", "edges": [1]})
    kinds = [kind for kind in MORE if kind.name in ("graph", "table of graphs")]
    for name, row in trials(place, 16, seed=2, kinds=kinds).items():
        assert row["refused"] + row["equal"] == 8, name
    twin = [kinds[0]._replace(read=lambda place: sorted(p.name for p in place.glob("graphs/*")))]
    assert trials(place, 8, seed=2, kinds=twin)["graph"]["equal"] == 8
    for folder, n_files in (("graphs", 3), ("circuit", 1)):
        seen = inspect(place / folder)
        assert (seen.kind, len(seen.files), seen.damaged) == (folder, n_files, [])
    file = place / "graphs" / "prompt-1.graph.json"
    file.write_bytes(file.read_bytes().replace(b'"slug"', b'"slUg"', 1))
    assert [damaged.file for damaged in inspect(place / "graphs").damaged] == [file.name]
    assert main(["info", str(place / "graphs")]) == 1
    assert "prompt-1.graph.json" in capsys.readouterr().err


def test_readers_that_compare_no_digest_would_be_caught(place: Path):
    def unread(file: Path) -> object:
        return load_file(file) if file.suffix == ".safetensors" else json.loads(file.read_text())

    for name in ("sae weights", "checkpoint", "moments"):
        kind = next(kind for kind in KINDS if kind.name == name)
        (file,) = place.glob(kind.files)
        twin = Kind(name, kind.files, lambda _, file=file: unread(file))
        assert trials(place, 12, seed=1, kinds=[twin])[name]["different"] >= 5
