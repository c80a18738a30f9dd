"""A capture killed anywhere resumes to the same bytes."""

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

from saelab import locks, models
from saelab.activations import Cache, lines
from saelab.activations.folder import Folder
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


def stopped(whole: dict[str, bytes], out: Path, n_shards: int) -> Path:
    """What a capture leaves that is killed behind the line of a shard, with the moments of no more
    than these shards."""
    out.mkdir()
    for name, content in whole.items():
        if name[:5].isdigit():
            (out / name).write_bytes(content)
    manifest = json.loads(whole["manifest.json"])
    nothing = dict.fromkeys(("shard_lines", "moments", "documents"))
    write_json(out / "manifest.json", {**manifest, **nothing, "complete": False})
    every = whole[lines.FILE].splitlines(keepends=True)
    shards = [number for number, line in enumerate(every) if line.startswith(b'{"shard"')]
    (out / lines.FILE).write_bytes(b"".join(every[: shards[n_shards - 1] + 1]))
    return out


def test_moments_of_shards_behind_the_last_ones_written_are_made_again(
    job, whole, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    assert lines.read(stopped(whole, tmp_path / "c", 1)).n_counted == 0
    assert contents(job(tmp_path / "c")) == whole
    # A resume that does not read them again, and one that counts them twice, would be caught.
    recount = Folder.recount
    for twin in (lambda *_: None, lambda *args: (recount(*args), recount(*args))):
        monkeypatch.setattr(Folder, "recount", twin)
        out = stopped(whole, tmp_path / f"twin of {id(twin)}", 1)
        assert contents(job(out)) != whole


@pytest.mark.parametrize("kept", [0, 1, 100, -1])
def test_a_torn_last_line_is_dropped_and_its_shard_made_again(
    job, whole, tmp_path: Path, kept: int
):
    out = stopped(whole, tmp_path / "c", 2)
    first, last = (out / lines.FILE).read_bytes().splitlines(keepends=True)
    for torn in (last[:kept], last[:-9] + b"\0" * 8 + b"\n"):
        (out / lines.FILE).write_bytes(first + torn)
        assert len(lines.read(out).shards) == 1 and lines.read(out).n_bytes == len(first)
    with pytest.raises(UsageError, match="unfinished"):
        Cache(out)
    assert contents(job(out)) == whole


def test_a_damaged_line_before_the_last_is_refused_by_name(job, whole, tmp_path: Path):
    out = stopped(whole, tmp_path / "c", 2)
    first, last = (out / lines.FILE).read_bytes().splitlines(keepends=True)
    wrong = [first[:at] + bytes([first[at] ^ 4]) + first[at + 1 :] for at in range(len(first))]
    wrong += [first[:-2] + b"\n", b"\n", b"", first + first]
    for damaged in wrong:
        (out / lines.FILE).write_bytes(damaged + last + last)
        with pytest.raises(FailedRun, match=r"line \d of .*shards\.jsonl (is|was) "):
            lines.read(out)
    with pytest.raises(FailedRun, match=r"line 2 of .*shards\.jsonl is damaged"):
        job(out)


@pytest.mark.parametrize("name", ["moments-", "00000."])
def test_damage_of_an_unfinished_capture_is_named_and_not_gone_on_with(
    job, tmp_path: Path, name: str
):
    out = tmp_path / "c"
    run_and_kill(lambda progress: job(out, progress), 26, 0.0)
    held = lines.read(out)
    (entry,) = (e for e in (*held.shards, held.moments) if e and name in e["file"])
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
