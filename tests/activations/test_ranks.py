"""Several ranks write the cache that one writes, and each dies for all."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from saelab import ranks
from saelab.activations import lines
from saelab.activations.from_arrays import FromArrays
from saelab.activations.writer import write
from saelab.errors import FailedRun, UsageError
from saelab.files import read_json
from tests.activations.test_scale import contents, source
from tests.several import outcomes


def joined(work: Callable[[], object]) -> object:
    """What `work` gives among the other ranks."""
    with ranks.joined(remedy="repeat the command"):
        return work()


def test_ranks_write_the_bytes_of_one_and_resume_each_others_work(tmp_path: Path):
    whole = contents(write(source(8), tmp_path / "whole"))

    def stopping(rank_killed: int | None) -> object:
        mine = source(8)
        acts, made = FromArrays.acts, []

        def until_killed(piece: Any) -> Any:
            if ranks.rank() == rank_killed and made:
                while len(lines.read(tmp_path / "c").shards) < 3:
                    time.sleep(0.01)
                os.kill(os.getpid(), signal.SIGKILL)
            made.append(len(piece.numbers))
            return acts(mine, piece)

        mine.acts = until_killed  # type: ignore[method-assign]
        return joined(lambda: write(mine, tmp_path / "c"))

    started = time.monotonic()
    ended = outcomes(3, lambda: stopping(1))
    assert time.monotonic() - started < 30
    assert ended[1] is None and "rank 1 of 3 ended without a word" in str(ended[0])
    assert isinstance(ended[0], FailedRun) and isinstance(ended[2], ranks.Told)
    assert "shard_lines" in read_json(tmp_path / "c" / "manifest.json")
    assert 0 < len(lines.read(tmp_path / "c").shards) < len(whole) - 4
    assert outcomes(2, lambda: stopping(None)) == [tmp_path / "c"] * 2
    assert contents(tmp_path / "c") == whole
    assert outcomes(2, lambda: stopping(None)) == [tmp_path / "c"] * 2  # nothing is left to do


def test_ranks_that_disagree_and_what_the_first_refuses_end_all(tmp_path: Path):
    def other() -> object:
        mine = source(3 + ranks.rank())
        return joined(lambda: write(mine, tmp_path / "c"))

    ended = outcomes(2, other)
    assert isinstance(ended[0], UsageError) and "disagree on what to capture" in str(ended[0])
    assert isinstance(ended[1], UsageError | ranks.Told) and not (tmp_path / "c").exists()
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "mine.txt").touch()
    ended = outcomes(2, lambda: joined(lambda: write(source(3), tmp_path / "c")))
    assert isinstance(ended[0], UsageError) and "exists and is no cache" in str(ended[0])
    assert isinstance(ended[1], ranks.Told)
