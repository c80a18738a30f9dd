"""`saelab info`: what a folder or file is, whether it is whole, and what cannot be told."""

import json
import shutil
import sqlite3
from pathlib import Path

import pytest

from apps.cli import main
from saelab.features.schema import SCHEMA
from saelab.files import read_json, write_json
from tests import toy_index
from tests.conftest import HOOK, SECOND_HOOK
from tests.schemas import check


@pytest.fixture
def cache(tiny_cache: Path, tmp_path: Path) -> Path:
    """A cache that may be damaged."""
    return Path(shutil.copytree(tiny_cache, tmp_path / "cache"))


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run that may be damaged."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def info(capsys: pytest.CaptureFixture, *words: object) -> tuple[int, dict, str]:
    """Exit code, document and last line on standard error."""
    code = main(["info", *map(str, words), "--json"])
    printed = capsys.readouterr()
    document = json.loads(printed.out) if printed.out else {}
    if document:
        check(document, "info")
    return code, document, (printed.err.strip().splitlines() or [""])[-1]


def digests_of(document: dict) -> dict[str, str]:
    """The digest of each file."""
    return {row["file"]: row["digest"] for row in document["files"]}


def flip(path: Path, at: int = -1) -> None:
    """Flip a bit of a file."""
    whole = bytearray(path.read_bytes())
    whole[at] ^= 1
    path.write_bytes(whole)


def test_a_cache_says_what_it_holds(cache: Path, capsys):
    code, document, _ = info(capsys, cache)
    facts = document["facts"]
    assert (code, document["kind"], document["finished"]) == (0, "cache", True)
    assert facts["hooks"] == {HOOK: 32, SECOND_HOOK: 32} and facts["dtype"] == "float32"
    assert facts["tokens"]["train"] > facts["tokens"]["held_out"] > 0
    assert digests_of(document)["manifest.json"] == "right"
    assert digests_of(document)["00000.safetensors"] == "not read"
    code, document, _ = info(capsys, cache, "--verify")
    assert code == 0 and set(digests_of(document).values()) == {"right"}
    assert main(["info", str(cache)]) == 0
    assert "hooks: blocks.0.hook_resid_post 32, blocks.1.attn.hook_z 32" in capsys.readouterr().out


def test_a_run_says_what_it_is_and_what_it_has(run: Path, capsys):
    toy_index.build(run / "features.db")
    write_json(run / "report.json", {"schema": "saelab/report/1"})
    code, document, _ = info(capsys, run, "--verify")
    facts = document["facts"]
    assert (code, document["kind"], document["whole"]) == (0, "run", True)
    assert (facts["d_model"], facts["n_features"], facts["sparsify"], facts["k"]) == (
        *(32, 64),
        *("topk", 4),
    )
    assert facts["hook"] == HOOK and facts["step"] == 156
    assert facts["reports"] == {"report.json": "report"} and facts["index"] == SCHEMA
    assert digests_of(document) == {
        "config.yaml": "none",
        "metrics.jsonl": "none",
        "sae/sae.json": "right",
        "sae/sae.safetensors": "right",
        "checkpoints/step-00000156.safetensors": "right",
        "report.json": "right",
        "features.db": "right",
        "training.json": "right",
    }
    for name, kind in (
        ("sae", "sae"),
        ("report.json", "document"),
        ("features.db", "index"),
        ("checkpoints/step-00000156.safetensors", "checkpoint"),
    ):
        code, document, _ = info(capsys, run / name, "--verify")
        assert (code, document["kind"]) == (0, kind)


@pytest.mark.parametrize(
    ("file", "needs_verify"),
    [
        ("sae/sae.safetensors", True),
        ("checkpoints/step-00000156.safetensors", True),
        ("sae/sae.json", False),
        ("report.json", False),
        ("metrics.jsonl", False),
        ("config.yaml", False),
    ],
)
def test_a_damaged_file_is_named(run: Path, capsys, file: str, needs_verify: bool):
    write_json(run / "report.json", {"schema": "saelab/report/1"})
    if file == "config.yaml":
        (run / file).write_text("a: [")
    else:
        flip(run / file, 1 if file.endswith(("json", "jsonl")) else -1)
    code, document, _ = info(capsys, run)
    assert (code, document["whole"]) == ((0, True) if needs_verify else (1, False))
    code, document, last = info(capsys, run, "--verify")
    assert (code, document["whole"]) == (1, False)
    assert last.startswith(f"saelab info: {run} is damaged: {file}: ")
    (problem,) = [row for row in document["files"] if row["problem"]]
    assert problem["file"] == file


def test_a_cut_and_a_missing_shard_and_a_damaged_manifest_are_named(cache: Path, capsys):
    shard = cache / "00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-5])
    (cache / "00000.safetensors").unlink()
    code, document, last = info(capsys, cache)
    assert code == 1 and "00000.safetensors: is missing; 1 more of its files" in last
    rows = {row["file"]: row for row in document["files"]}
    assert "was cut or changed" in rows["00001.safetensors"]["problem"]
    assert rows["00000.safetensors"]["bytes"] is None
    flip(cache / "manifest.json", 1)
    code, document, last = info(capsys, cache)
    assert code == 1 and "manifest.json is damaged, it is no JSON" in last


def test_older_files_are_said_to_have_no_digest(cache: Path, run: Path, capsys):
    for path in (cache / "manifest.json", run / "sae" / "sae.json"):
        written = read_json(path)
        del written["sha256"]
        written.pop("weights", None)
        path.write_text(json.dumps(written))
    code, document, _ = info(capsys, cache, "--verify")
    assert code == 0 and digests_of(document)["manifest.json"] == "none"
    code, document, _ = info(capsys, run / "sae", "--verify")
    assert code == 0
    assert digests_of(document) == {"sae.json": "none", "sae.safetensors": "none"}
    assert main(["info", str(run / "sae")]) == 0
    assert "without a digest: sae.json, sae.safetensors" in capsys.readouterr().out


def test_an_index_of_another_version_is_no_damage_and_a_cut_one_is(run: Path, capsys):
    path = run / "features.db"
    toy_index.build(path)
    whole = path.read_bytes()
    with sqlite3.connect(path) as connection:
        connection.execute("update meta set value = 'saelab/features/1' where key = 'schema'")
        connection.execute("delete from meta where key = 'sha256'")
    connection.close()
    code, document, _ = info(capsys, run, "--verify")
    assert code == 0 and document["facts"]["index"] == "saelab/features/1"
    assert digests_of(document)["features.db"] == "none"
    for left in (0, 100, len(whole) // 2):
        path.write_bytes(whole[:left])
        code, document, last = info(capsys, path)
        assert code == 1 and "features.db" in last, left


def test_what_is_unfinished_says_so(cache: Path, run: Path, capsys):
    manifest = read_json(cache / "manifest.json")
    write_json(cache / "manifest.json", {**manifest, "complete": False, "documents": None})
    shutil.rmtree(run / "sae")
    for path in (cache, run):
        code, document, _ = info(capsys, path)
        assert (code, document["finished"], document["whole"]) == (0, False, True)
    assert main(["info", str(run)]) == 0
    assert f"{run}: run, unfinished" in capsys.readouterr().out


def test_what_is_not_known_is_refused_with_what_was_seen(tmp_path: Path, capsys):
    (tmp_path / "a.txt").write_text("hello")
    (tmp_path / "a.json").write_text("{}")
    for path, said in (
        (tmp_path, "it has a.json, a.txt"),
        (tmp_path / "a.txt", "it is a file of 5 bytes"),
        (tmp_path / "a.json", "it is a file of 2 bytes"),
        (tmp_path / "none", "there is no such folder"),
    ):
        code, document, last = info(capsys, path)
        assert (code, document) == (2, {})
        assert said in last and "known are a cache, a run" in last
