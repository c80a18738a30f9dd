"""Caches at scale: a shard costs the same however many there are, disks fill, and what older
versions wrote opens."""

import errno
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from apps.cli import main
from saelab import digests, files
from saelab.activations import Cache, estimate, folder, lines
from saelab.activations.background import InOrder
from saelab.activations.folder import Folder
from saelab.activations.from_arrays import FromArrays, from_arrays
from saelab.activations.writer import write
from saelab.errors import FailedRun, UsageError
from saelab.files import read_json, write_json
from saelab.inspection import inspect
from tests.conftest import HOOK

CONTEXT, A_SHARD = 4, 16  # positions, contexts


def source(n_shards: int, width: int = 3) -> FromArrays:
    """Random rows that make up so many shards, or one more."""
    n_rows = n_shards * A_SHARD * CONTEXT
    x_ND = torch.randn(n_rows, width, generator=torch.Generator().manual_seed(0))
    of_rows = from_arrays(x_ND, context=CONTEXT, dtype="float32")
    of_rows.plan = replace(of_rows.plan, shard_contexts=A_SHARD)
    return of_rows


def contents(out: Path) -> dict[str, bytes]:
    """Name and bytes of every file."""
    return {path.name: path.read_bytes() for path in out.iterdir()}


# --- what a shard costs --------------------------------------------------------------------------


def handled(n_shards: int, out: Path, monkeypatch: pytest.MonkeyPatch) -> float:
    """Bytes that writing a cache of so many shards wrote and hashed, per shard."""
    n_bytes = [0]

    def counting(function: Callable, size: Callable[..., int]) -> Callable:
        def counted(*args: Any, **options: Any) -> Any:
            result = function(*args, **options)
            n_bytes[0] += size(*args)
            return result

        return counted

    with monkeypatch.context() as patch:
        patch.setattr(files, "_fsync", counting(files._fsync, lambda path: _length(path)))
        patch.setattr(lines, "append", counting(files.append, lambda _, line: len(line)))
        patch.setattr(digests, "sha256", counting(digests.sha256, lambda *p: sum(map(_length, p))))
        write(source(n_shards), out)
    # Documents' names are written once, and have no part in what a shard costs.
    n_bytes[0] -= 2 * _length(out / "documents.json")
    return n_bytes[0] / len(Cache(out).manifest["shards"])


def _length(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0


def test_a_shard_costs_the_same_in_a_cache_of_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    few, many = (handled(n, tmp_path / str(n), monkeypatch) for n in (8, 60))
    assert many <= few  # the manifest and the last moments are shared by more
    # A writer that also wrote all entries once a shard, as a manifest's list would have it.
    name = Folder._name

    def relisting(self: Folder, *args: Any) -> None:
        name(self, *args)
        write_json(self.out / "list.json", self.manifest["shards"])

    monkeypatch.setattr(Folder, "_name", relisting)
    few, many = (handled(n, tmp_path / f"twin {n}", monkeypatch) for n in (8, 60))
    assert many > 1.5 * few


def test_moments_are_written_once_for_sixteen_times_their_size_of_shards(tmp_path: Path):
    wide = source(20, width=40)
    every = wide.plan.moments_every
    assert every == -(-16 * wide.plan.moments_bytes // wide.plan.shard_bytes) > 30
    cache = Cache.write(tmp_path / "wide", wide)
    assert (tmp_path / "wide" / lines.FILE).read_text().count('{"moments"') == 1
    narrow = Cache.write(tmp_path / "narrow", source(20))
    n_shards, every = len(narrow.manifest["shards"]), narrow.plan.moments_every
    written = (narrow.path / lines.FILE).read_text().count('{"moments"')
    assert 1 < every < n_shards and written == -(-n_shards // every)
    for each, rows in ((cache, wide), (narrow, source(20))):
        x_ND = torch.cat([chunk.x for chunk in each.counted("acts")]).double()
        assert each.moments("acts").n == len(x_ND) < len(rows.rows_ND["acts"])
        torch.testing.assert_close(each.moments("acts").second, x_ND.T @ x_ND, rtol=1e-6, atol=1e-4)


def test_a_first_read_hashes_the_shards_that_it_reads_and_no_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    write(source(12), tmp_path / "c")
    hashed: list[str] = []
    sha256 = digests.sha256
    monkeypatch.setattr(digests, "_right", set())
    monkeypatch.setattr(digests, "sha256", lambda path: hashed.append(path.name) or sha256(path))
    cache = Cache(tmp_path / "c")
    next(cache.contexts("acts", "held_out"))
    assert hashed == [lines.FILE, cache.shards("held_out")[0]["file"]]
    cache.verify()
    assert len(hashed) == len(set(hashed)) == len(list(cache.path.iterdir())) - 1


# --- writing in the background -------------------------------------------------------------------


def test_works_are_done_in_order_and_none_after_one_that_fails():
    done: list[int] = []

    def work(number: int) -> None:
        if number == 3:
            time.sleep(0.05)
            raise FailedRun("the third")
        done.append(number)

    with pytest.raises(FailedRun, match="the third"), InOrder() as background:
        for number in range(9):
            background.do(lambda number=number: work(number))
    assert done == [0, 1, 2]
    with pytest.raises(KeyError), InOrder() as background:
        background.do(lambda: done.append(3))
        raise KeyError  # what was given before is done all the same
    assert done == [0, 1, 2, 3]
    with pytest.raises(FailedRun, match="the third"), InOrder() as background:
        background.do(lambda: work(3))
        raise KeyboardInterrupt
    started = time.monotonic()
    with pytest.raises(KeyError), InOrder(patience=0.05) as background:
        for _ in range(2):
            background.do(lambda: time.sleep(0.5))
        raise KeyError
    assert time.monotonic() - started < 0.4


@pytest.mark.parametrize("where", ["save_file", "append"])
def test_a_disk_that_fills_under_way_is_told_and_leaves_nothing_half_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str
):
    whole = contents(write(source(9), tmp_path / "whole"))
    module = folder if where == "save_file" else lines
    writes, original = [0], getattr(module, where)

    def full(*args: Any) -> None:
        writes[0] += 1
        if writes[0] == 5:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(*args)

    with monkeypatch.context() as patch:
        patch.setattr(module, where, full)
        with pytest.raises(
            FailedRun, match=r"disk full: .* needs [\d,]+ more bytes; make room and"
        ):
            write(source(9), tmp_path / "c")
    left = contents(tmp_path / "c")
    assert 3 <= len(lines.read(tmp_path / "c").shards) < 9
    assert not any(name.startswith(".") for name in left)
    assert all(whole[name] == content for name, content in left.items() if name[0] == "0")
    assert contents(write(source(9), tmp_path / "c")) == whole


def test_a_line_that_does_not_fit_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    files.append(tmp_path / "a", b"one\n")
    write_ = os.write

    def half(descriptor: int, line: Any) -> int:
        if len(line) < 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write_(descriptor, line[:2])

    monkeypatch.setattr(os, "write", half)
    with pytest.raises(OSError, match="No space"):
        files.append(tmp_path / "a", b"two\n")
    assert (tmp_path / "a").read_bytes() == b"one\n"


# --- caches of older versions --------------------------------------------------------------------


def as_older(cache: Path, **fields: Any) -> None:
    """Give a cache the form of schemas 1 and 2, whose manifest lists the shards."""
    held = read_json(cache / "manifest.json")
    del held["shard_lines"], held["settings"]["n_bytes"]
    held["schema"] = {"3": "saelab/cache/1", "4": "saelab/cache/2"}[held["schema"][-1]]
    write_json(cache / "manifest.json", {**held, "shards": lines.read(cache).shards, **fields})
    (cache / lines.FILE).unlink()


def test_a_cache_of_an_older_version_opens_and_one_it_left_unfinished_is_refused(
    tiny_cache: Path, tmp_path: Path
):
    old = Path(shutil.copytree(tiny_cache, tmp_path / "old"))
    as_older(old)
    one, other = Cache(tiny_cache), Cache(old)
    other.verify()
    seen = inspect(old, verify=True)
    assert (
        seen.finished and not seen.damaged and seen.facts["shards"] == len(one.shards("train")) + 1
    )
    assert other.manifest["shards"] == one.manifest["shards"]
    assert torch.equal(next(one.batches(HOOK, 64)), next(other.batches(HOOK, 64)))
    assert torch.equal(one.moments(HOOK).second, other.moments(HOOK).second)
    out = write(source(3), tmp_path / "c")
    as_older(out)
    before = contents(out)
    assert write(source(3), out) == out and contents(out) == before  # nothing is left to do
    write_json(out / "manifest.json", {**read_json(out / "manifest.json"), "complete": False})
    with pytest.raises(UsageError, match="was begun by an older version"):
        write(source(3), out)


def test_damaged_lines_of_a_finished_cache_are_named(tiny_cache: Path, tmp_path: Path):
    cache = Path(shutil.copytree(tiny_cache, tmp_path / "c"))
    whole = (cache / lines.FILE).read_bytes()
    for damaged in (whole[:-1], whole + b"\n", whole.replace(b"train", b"brain", 1), b""):
        (cache / lines.FILE).write_bytes(damaged)
        with pytest.raises(FailedRun, match=r"shards\.jsonl of .* was (cut|altered)"):
            Cache(cache)
        assert "shards.jsonl" in inspect(cache).damaged[0].problem
    (cache / lines.FILE).unlink()
    with pytest.raises(FailedRun, match=r"shards\.jsonl of .* is missing"):
        Cache(cache)


# --- sizes ---------------------------------------------------------------------------------------


def test_shards_and_caches_are_of_the_size_asked_for(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
):
    asked = ["capture", "--model", str(tiny_model), "--text", str(tiny_corpus), "--hook", HOOK]
    asked += ["--json", "--dtype", "float32", "--out", str(tmp_path / "c")]
    assert main([*asked, "--bytes", "1.2MB", "--shard-mb", "1"]) == 0
    result = json.loads(capsys.readouterr().out)
    cache = Cache(tmp_path / "c")
    assert 1_150_000 < result["bytes"] == sum(s["bytes"] for s in cache.manifest["shards"])
    assert result["bytes"] <= 1_200_000 == cache.manifest["settings"]["n_bytes"]
    largest = max(shard["bytes"] for shard in cache.manifest["shards"])
    assert largest <= 1_000_000 * 136 / 128 + 4096 and min(result["tokens"].values()) > 0
    assert main([*asked, "--bytes", "9kB", "--held-out", "200"]) == 2
    assert "bytes=9,000 hold 0 contexts of 4,352 bytes, 8 are the least" in capsys.readouterr().err
    for words, said in (
        (["--bytes", "2 apples"], "'2 apples' is no size such as 500MB, 2GB or 1.5TB"),
        (["--bytes", "0"], "bytes=0: give a whole number of at least 1"),
        (["--shard-mb", "5k"], "shard_mb=5000: give a whole number from 1 to 4096"),
    ):
        assert main([*asked, *words]) == 2
        assert said in capsys.readouterr().err.splitlines()[-1]


def test_memory_that_is_stated_does_not_grow_with_the_cache():
    plan = source(9).plan
    small, large, huge = (
        estimate.memory(replace(plan, n_tokens=n * plan.context * A_SHARD)) for n in (1, 100, 10**6)
    )
    assert small < large == huge
    assert large - estimate.memory(plan.in_shards_of(1)) == 0  # the least that there is
    assert estimate.memory(replace(plan.in_shards_of(10**6), n_tokens=10**7)) > 3 * 900_000
