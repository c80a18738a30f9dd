"""A capture reads its next shard's contexts while one is computed, in a thread that ends with
it."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from saelab.activations import Cache
from saelab.activations.plan import Plan, hook
from saelab.activations.source import Piece, all_but_first, shards
from saelab.errors import UsageError

PER_SHARD, N_SHARDS = 16, 6


class Slow:
    """Contexts of which each shard's activations are computed once the next one's were read."""

    def __init__(self, wrong_at: int = -1) -> None:
        self.plan = Plan(
            model={"name": "slow"},
            text="slow",
            hooks={"acts": hook([4])},
            n_tokens=PER_SHARD * N_SHARDS * 8,
            context=8,
            shard_contexts=PER_SHARD,
        )
        self.names, self.notes, self.wrong_at = ["a"], {}, wrong_at
        self.n_read, self.n_computed = 0, 0
        self.readers: set[str] = set()

    def pieces(self) -> Iterator[Piece]:
        self.n_read = 0
        for number in range(PER_SHARD * N_SHARDS):
            if number == self.wrong_at:
                raise UsageError("slow: this text is damaged")
            self.readers.add(threading.current_thread().name)
            self.n_read += 1
            tokens = torch.full((1, 8), number)
            split = "held_out" if number < PER_SHARD else "train"
            zeros = torch.zeros_like(tokens)
            yield Piece(split, tokens, zeros, torch.tensor([number]), all_but_first(tokens))

    def acts(self, piece: Piece) -> Iterator[dict]:
        self.n_computed += 1
        due = min(self.n_computed + 1, N_SHARDS) * PER_SHARD
        ends = time.monotonic() + 5
        while self.n_read < due and time.monotonic() < ends:
            time.sleep(0.001)
        if self.n_read < due:
            raise TimeoutError(f"{self.n_read} contexts were read, {due} are due")
        yield {"acts": piece.tokens[..., None].float().expand(-1, -1, 4)}


def threads() -> set[str]:
    """The names of the threads that there are."""
    return {thread.name for thread in threading.enumerate()}


def test_the_next_shard_is_read_while_one_is_computed(tmp_path: Path):
    source = Slow()
    cache = Cache.write(tmp_path / "c", source)
    order = [int(row) for chunk in cache.contexts("acts") for row in chunk.acts[:, 0, 0]]
    assert order == list(range(PER_SHARD, PER_SHARD * N_SHARDS))
    assert source.readers == {"ahead"} and "ahead" not in threads()


def test_reading_only_when_a_shard_is_due_would_be_caught(monkeypatch: pytest.MonkeyPatch):
    source, clock = Slow(), iter(range(0, 10_000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: next(clock))
    with pytest.raises(TimeoutError, match="16 contexts were read, 32 are due"):
        for shard in shards(source.pieces(), PER_SHARD):
            list(source.acts(shard))


def test_no_more_than_the_next_shard_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    source = Slow()
    compute, seen = source.acts, []

    def acts(piece: Piece) -> Iterator[dict]:
        yield from compute(piece)
        time.sleep(0.05)  # time enough to read everything
        seen.append(source.n_read - source.n_computed * PER_SHARD)

    monkeypatch.setattr(source, "acts", acts)
    Cache.write(tmp_path / "c", source)
    assert max(seen) <= PER_SHARD and max(seen) > 0


@pytest.mark.parametrize("stop", [KeyboardInterrupt, UsageError])
def test_the_thread_ends_with_a_capture_that_is_stopped(tmp_path: Path, stop: type):
    def progress(n_tokens: int) -> None:
        raise stop("enough")

    started = time.perf_counter()
    with pytest.raises(stop, match="enough"):
        Cache.write(tmp_path / "c", Slow(), progress)
    assert time.perf_counter() - started < 0.9 and "ahead" not in threads()


def test_an_error_of_the_text_is_raised_at_the_shard_that_it_struck(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = Slow(wrong_at=PER_SHARD * 3 + 5)
    acts = lambda piece: [{"acts": torch.zeros(*piece.tokens.shape, 4)}]  # noqa: E731
    monkeypatch.setattr(source, "acts", acts)
    done = []
    with pytest.raises(UsageError, match="slow: this text is damaged"):
        Cache.write(tmp_path / "c", source, done.append)
    assert max(done) == 3 * PER_SHARD * 8  # what was whole before is written
    assert (tmp_path / "c" / "00002.safetensors").exists() and "ahead" not in threads()
