"""Killed anywhere and repeated, verbs end as if nothing had happened."""

from pathlib import Path

import pytest

from saelab.activations import plan
from tests.faults.kills import at_random, differing, table, tried, wholes
from tests.faults.verbs import VERBS, prepare

CHECKED = [verb for verb in VERBS if verb.name in ("train", "sweep", "capture", "index")]


def test_ten_kills_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(plan, "SHARD_BYTES", plan.SHARD_BYTES)  # which `prepare` sets
    prepare(tmp_path)
    tries = at_random(CHECKED, 10, seed=1)
    rows, wrong = table(tried(tries, tmp_path, wholes(CHECKED, tmp_path)))
    assert wrong == []
    assert sum(row["kills"] for row in rows.values()) == 10


def test_what_is_left_behind_or_another_would_be_caught(tmp_path: Path):
    for name in ("a", "b"):
        (tmp_path / name / "inner").mkdir(parents=True)
        (tmp_path / name / "inner" / "file").write_text(name)
    (tmp_path / "a" / ".lock").touch()
    (tmp_path / "a" / ".left").mkdir()
    wrong = [".left", ".lock", "inner/file"]
    assert differing(tmp_path / "a", tmp_path / "b") == wrong
