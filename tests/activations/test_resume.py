"""A capture killed anywhere resumes to the same bytes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from saelab import locks, models
from saelab.activations import Cache
from saelab.activations.from_text import from_text
from saelab.activations.writer import write
from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from tests.conftest import HOOK
from tests.killing import run_and_kill

rng = random.Random(7)
POINTS = [(rng.randint(1, 28), rng.random() * 0.02) for _ in range(5)]


@pytest.fixture(scope="module")
def job(tiny_model: Path, tiny_corpus: Path):
    """A capture of seven small shards as a function of the folder and a progress callback."""
    bridge = models.load(tiny_model)
    source = from_text(bridge, str(tiny_corpus), [HOOK], 16_000, dtype="float16")
    source.plan = replace(source.plan, shard_contexts=64)
    return lambda out, progress=None: write(source, out, progress)


@pytest.fixture(scope="module")
def whole(job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """All files of an uninterrupted capture."""
    return contents(job(tmp_path_factory.mktemp("whole") / "c"))


def contents(folder: Path) -> dict[str, bytes]:
    """Name and bytes of every file."""
    return {p.name: p.read_bytes() for p in folder.iterdir()}


@pytest.mark.parametrize(("after", "delay"), POINTS)
def test_a_killed_capture_resumes_to_the_same_bytes(
    job, whole, tmp_path: Path, after: int, delay: float
):
    out = tmp_path / "c"
    assert run_and_kill(lambda progress: job(out, progress), after, delay) == after
    if (out / "manifest.json").exists() and not json.loads((out / "manifest.json").read_text())[
        "complete"
    ]:
        with pytest.raises(UsageError, match="unfinished"):
            Cache(out)
    assert contents(job(out)) == whole


def test_a_resume_that_starts_over_in_the_middle_would_be_caught(job, whole, tmp_path: Path):
    out = tmp_path / "c"
    run_and_kill(lambda progress: job(out, progress), 20, 0.0)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["shards"], "killed before the first shard: the twin would prove nothing"
    manifest["shards"] = manifest["shards"][:-1]
    write_json(out / "manifest.json", manifest)
    assert contents(job(out)) != whole  # the last shard's tokens are counted twice in the moments


@pytest.mark.parametrize("name", ["moments-", "00000."])
def test_damage_of_an_unfinished_capture_is_named_and_not_gone_on_with(
    job, tmp_path: Path, name: str
):
    out = tmp_path / "c"
    run_and_kill(lambda progress: job(out, progress), 20, 0.0)
    manifest = json.loads((out / "manifest.json").read_text())
    (entry,) = (e for e in (*manifest["shards"], manifest["moments"]) if name in e["file"])
    file = out / entry["file"]
    written = bytearray(file.read_bytes())
    written[-1] ^= 4
    file.write_bytes(written)
    with pytest.raises(FailedRun, match=f"{name}.* was altered: its SHA-256"):
        job(out)
        Cache(out).verify()


def test_what_a_capture_left_that_was_killed_at_its_very_end_is_removed(job, whole, tmp_path: Path):
    out = job(tmp_path / "c")
    (out / ".lock").write_text("1 on elsewhere")
    (out / ".manifest.json.1.tmp").mkdir()
    with locks.only_writer(out):  # who writes keeps what is there
        assert job(out) == out and (out / ".manifest.json.1.tmp").exists()
    (out / ".lock").touch()
    assert contents(job(out)) == whole
