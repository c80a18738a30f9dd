"""Writing a cache: contexts are gathered into shards; while one is computed, others are written and
the next one's text is read and tokenised in a thread.

Several ranks write one cache: shard i is made by rank i modulo their number, and rank 0 alone
writes what says so, in the order of the shards. Whoever made them, the bytes are the same.
"""

import contextlib
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from saelab import ranks
from saelab.activations import resuming
from saelab.activations.ahead import Ahead, Check
from saelab.activations.background import PATIENCE, InOrder
from saelab.activations.filling import Filled
from saelab.activations.folder import Folder, Made
from saelab.activations.source import (
    Piece,
    Progress,
    Resume,
    Source,
    check_counted,
    is_here,
    shards,
)
from saelab.errors import UsageError
from saelab.files import read_json, tidy
from saelab.locks import only_writer


def write(source: Source, out: Path | str, progress: Progress | None = None) -> Path:
    """Write (or resume, or find finished) the cache of a source in folder `out`; the folder.

    progress(positions done) is called after every part that the source gives. Killed at any point,
    the same call goes on at the next shard and ends with the same bytes. Where the source ends
    early, the cache is shorter. Raises UsageError if `out` holds something else, the source is
    wrong or the disk cannot hold the cache, FailedRun under way.
    """
    out = Path(out)
    ranks.check_alike("what to capture", source.plan.settings())
    if not ranks.at_first(lambda: _complete(out)):
        with contextlib.ExitStack() as lock:
            ranks.at_first(lambda: _begin(source, out, lock))
            folder = Folder(source, out)
            if not folder.manifest["complete"]:
                _write(folder, source, progress)
                return out
    ranks.at_first(lambda: _check_unchanged(source, out))
    return out


def _complete(out: Path) -> bool:
    path = out / "manifest.json"
    return path.is_file() and bool(read_json(path).get("complete"))


def _begin(source: Source, out: Path, lock: contextlib.ExitStack) -> None:
    """Keep other writers out for as long as the lock is held, and remove what a killed one left."""
    lock.enter_context(only_writer(out))
    folder = Folder(source, out)
    if not folder.manifest["complete"]:
        folder.prepare()


def _check_unchanged(source: Source, out: Path) -> None:
    """Raise UsageError where a source would fill a finished cache with other contexts by now; what
    comes over a network is taken by its name."""
    tidy(out)
    folder = Folder(source, out)
    is_unchanged = getattr(source, "is_unchanged", lambda notes: False)
    if not is_here(source) or is_unchanged(folder.manifest):
        return
    pieces = enumerate(shards(source.pieces(), source.plan.shard_contexts))
    same = [number < folder.n_held and folder.is_of(number, shard) for number, shard in pieces]
    was_read = getattr(source, "was_read", lambda notes: True)
    if len(same) != folder.n_held or not all(same) or not was_read(folder.manifest):
        raise UsageError(
            f"{folder.out} holds another text: {source.plan.text} is not what it was when it was "
            "made; choose another --out"
        )


def _shards(source: Source, resume: Resume | None, check: Check) -> Iterator[Piece]:
    """The contexts of each shard. check: raises where the rest is not wanted."""
    states, waiting = ((resume.state,), resume.waiting) if resume else ((), ())
    read: Any = source.pieces

    def pieces() -> Iterator[Piece]:
        for piece in read(*states):
            check()
            yield piece

    return shards(pieces(), source.plan.shard_contexts, waiting)


def _write(folder: Folder, source: Source, progress: Progress | None) -> None:
    if ranks.rank() == 0:
        folder.recount(getattr(source, "device", "cpu"))
    tell = progress or (lambda _: None)
    n_shards, resume = resuming.load(folder.out, folder.n_held)
    made = folder.manifest["shards"][:n_shards]
    n_positions = sum(shard["contexts"] for shard in made) * source.plan.context
    mine: Made | None = None
    # A rank that fails does not wait for the others, which may be waiting for it.
    patience = PATIENCE if ranks.world() > 1 else None
    ahead = Ahead(partial(_shards, source, resume))
    with contextlib.closing(ahead), InOrder(patience) as background:
        for number, shard in enumerate(ahead, n_shards):
            check_counted(source.plan, shard)
            before, n_shards = n_positions, number + 1
            if number % ranks.world() == ranks.rank() and not folder.holds(number, shard):
                mine = Made(number, Filled(source.plan, shard))
                for n_contexts in mine.filled.fill(source):
                    background.check()
                    n_positions += n_contexts * shard.tokens.shape[1]
                    tell(n_positions)
            n_positions = before + shard.tokens.numel()
            tell(n_positions)
            if n_shards % ranks.world() == 0:
                background.do(partial(folder.add, mine, n_shards, shard.state))
                mine = None
        background.do(partial(folder.add, mine, n_shards))
    ranks.at_first(lambda: folder.finish(source.names, source.notes))
