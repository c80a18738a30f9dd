"""Batches: their order is what it always was, read in line or ahead by a thread, which ends with
its block however that ends."""

import hashlib
import shutil
import threading
import time
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.activations import Cache, batches, shuffled
from saelab.activations.ahead import Ahead
from saelab.activations.from_arrays import from_arrays
from saelab.errors import FailedRun
from tests.pretend import pretend_accelerator

# Of the first 50 batches of `made`, and of those from number 17 on, as they were before a thread
# read them.
ORDER = "69aa6e8e5cd9ff4fcb20eec25e2b7b9adebdcba9a0363e0c831e8d4ae921bd39"
FROM_17 = "d6a647bbddfd6b0d96cfc793aa01c588cad64831e26743626957192ac9893a2a"


def made(place: Path, n_contexts: int = 200) -> Cache:
    """A cache of two arrays whose rows say their number, in shards of 48 contexts."""
    rows_N = torch.arange(n_contexts * 9, dtype=torch.float32)
    arrays = {
        "one": torch.stack([rows_N, -rows_N], -1).view(n_contexts, 9, 2),
        "two": (rows_N % 512).view(n_contexts, 9, 1),
    }
    counted = torch.arange(9) < torch.arange(n_contexts)[:, None] % 7 + 3
    source = from_arrays(arrays, {"counted": counted}, dtype="float32")
    source.plan = replace(source.plan, shard_contexts=48)
    return Cache.write(place, source)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cache:
    """A cache of many buffers."""
    monkeypatch.setattr(shuffled, "BUFFER", 300)
    return made(tmp_path / "cache")


def stream(cache: Cache, **options: Any) -> batches.Batches:
    """Its batches, of both arrays."""
    return cache.batches(["one", "two"], 50, seed=3, **options)


def digest(stream: batches.Batches, n: int, wait: float = 0.0) -> str:
    """SHA-256 over n batches, each taken after a wait."""
    sha = hashlib.sha256()
    for _ in range(n):
        time.sleep(wait)
        for rows in next(stream).values():
            sha.update(rows.cpu().numpy().tobytes())
    return sha.hexdigest()


@pytest.mark.parametrize("ahead", [False, True])
def test_the_order_is_the_recorded_one_from_any_number_on(cache: Cache, ahead: bool):
    with stream(cache, ahead=ahead) as whole, stream(cache, ahead=ahead, start=17) as later:
        assert (digest(whole, 50), digest(later, 33)) == (ORDER, FROM_17)
        assert whole.number == later.number == 50


def test_the_order_is_the_same_on_another_device(cache: Cache):
    with pretend_accelerator(), stream(cache, device="pretend") as there:
        assert digest(there, 50) == ORDER


def test_a_buffer_that_is_filled_while_it_is_used_would_be_caught(cache: Cache, monkeypatch):
    monkeypatch.setattr(batches, "Ahead", lambda make, n: Ahead(make, n + 1))
    with stream(cache, ahead=True) as early:
        assert digest(early, 50, wait=0.005) != ORDER


def test_memory_does_not_grow_with_the_cache(cache: Cache, tmp_path: Path, monkeypatch):
    held: list[int] = []

    def kept(buffers: list) -> Any:
        held.append(0)
        for buffer in cycle(buffers):
            yield buffer
            held[-1] = max(held[-1], sum(rows.nbytes for rows in buffer.arrays.values()))

    monkeypatch.setattr(shuffled, "cycle", kept)
    for each in (cache, made(tmp_path / "large", 2000)):
        with stream(each, ahead=True) as read:
            digest(read, 60)
    assert held[1] <= 1.3 * held[0], held


def altered(cache: Cache) -> Path:
    """A shard of the cache with another byte at its end."""
    path = cache.path / cache.shards("train")[1]["file"]
    whole = path.read_bytes()
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    return path


def threads() -> list[str]:
    """The names of the threads that read ahead."""
    return [thread.name for thread in threading.enumerate() if thread.name == "ahead"]


def test_damage_is_told_by_the_trainer_in_the_same_line(cache: Cache, tmp_path: Path):
    copy = Cache(shutil.copytree(cache.path, tmp_path / "copy"))
    path = altered(copy)
    said = set()
    for ahead in (False, True):
        with pytest.raises(FailedRun) as told, stream(copy, ahead=ahead) as read:
            digest(read, 50)
        said.add(str(told.value))
        assert threads() == []
    assert len(said) == 1 and path.name in said.pop()


def test_what_went_wrong_is_said_again_and_a_closed_one_says_so():
    items = Ahead(lambda check: iter([1, 1 // 0]))
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            next(items)
    items.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(items)


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_the_thread_ends_within_a_second_while_it_reads(
    cache: Cache, monkeypatch, error: type[BaseException]
):
    copied, copy, started = [], shuffled._copy, 0.0

    def slow(*arguments: Any) -> None:
        copied.append(time.sleep(0.05))
        copy(*arguments)

    with pytest.raises(error), stream(cache, ahead=True) as read:
        next(read)
        monkeypatch.setattr(shuffled, "PAGE", 1)
        monkeypatch.setattr(shuffled, "_copy", slow)
        next(read)
        assert threads() == ["ahead"]
        started = time.monotonic()
        raise error
    assert threads() == [] and time.monotonic() - started < 1


def test_a_reader_that_nobody_closes_would_be_seen(cache: Cache):
    read = stream(cache, ahead=True)
    read.__enter__()
    assert threads() == ["ahead"]
    read.close()
    assert threads() == []
