"""A Source is what fills a cache: a model over text, another SAE's error, a synthetic world, the
user's own tensors. `Cache.write(out, source)` writes what it gives.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from saelab.activations.plan import Plan
from saelab.errors import UsageError

SPLITS: tuple[str, ...] = ("train", "held_out")
Progress = Callable[[int], object]


class Piece(NamedTuple):
    """Contexts of one split that follow each other, without their activations."""

    split: str
    """`train` or `held_out`"""
    tokens: Tensor
    """[C, T] int64"""
    owners: Tensor
    """[C, T] int64: number of the document that each position belongs to"""
    numbers: Tensor
    """[C] int64: which contexts of the source these are"""
    counted: Tensor
    """[C, T] bool: which positions count. Only a plan with `masked=True` keeps them; without it
    they must be `all_but_first(tokens)`"""
    state: Any = None
    """of a single context: a function that says from what `pieces` goes on behind it, as plain
    JSON; of a shard: a `Resume`. None: it begins again"""

    @property
    def columns(self) -> tuple[Tensor, ...]:
        """tokens, owners, numbers, counted."""
        return self.tokens, self.owners, self.numbers, self.counted

    def part(self, rows: slice) -> "Piece":
        """The contexts of those rows."""
        return Piece(self.split, *(column[rows] for column in self.columns))


class Resume(NamedTuple):
    """What the contexts behind a shard are read from."""

    state: dict[str, Any]
    """plain JSON: what the source's `pieces` is to be given"""
    waiting: list[Piece]
    """contexts that were read before the shard was full, of the other split"""


def all_but_first(tokens_CT: Tensor) -> Tensor:
    """[C, T] bool: the positions that count where nothing else is said."""
    counted_CT = torch.ones(tokens_CT.shape, dtype=torch.bool)
    counted_CT[:, 0] = False
    return counted_CT


def check_counted(plan: Plan, shard: Piece) -> None:
    """Raise UsageError for positions that count otherwise than a plan without a mask says: the
    moments would be of other tokens than the batches."""
    right_CT = all_but_first(shard.tokens)
    if plan.masked or torch.equal(shard.counted, right_CT):
        return
    raise UsageError(
        f"the source counts {int(shard.counted.sum())} of {right_CT.numel()} positions, its plan "
        f"all but the first of each context, {int(right_CT.sum())}: plan with masked=True"
    )


class Source(Protocol):
    """What `Cache.write` asks for; any object that has these is one."""

    plan: Plan
    """what the cache will hold"""
    names: list[str]
    """name of each document by its number; complete once `pieces` has ended"""
    notes: dict[str, Any]
    """what else the manifest is to say, such as how many documents were cut; complete then too"""

    def pieces(self) -> Iterator[Piece]:
        """The contexts in order, in pieces of any size, the same ones at every call: a killed
        write reads them again, and a finished cache is compared with them, unless the source has
        an attribute `is_here` that is False. They are read in a thread, some way ahead of what
        `acts` is asked for. A source whose pieces have a state takes one as an argument, and gives
        the pieces behind it."""
        ...

    def acts(self, piece: Piece) -> Iterable[dict[str, Tensor]]:
        """Activations [c, T, ...] of the piece's contexts by name of `Plan.arrays`, in parts of any
        size that follow each other, on any device, which an attribute `device` names if it is not
        the CPU. Asked once for each shard that is not there yet."""
        ...


def is_here(source: Source) -> bool:
    """Whether reading the source again needs no network."""
    return getattr(source, "is_here", True)


def join(pieces: list[Piece]) -> Piece:
    """Pieces of one split as one, which goes on where the last of them does."""
    columns = zip(*(piece.columns for piece in pieces), strict=True)
    whole = Piece(pieces[0].split, *(torch.cat(column) for column in columns))
    return whole._replace(state=pieces[-1].state)


def shards(
    pieces: Iterable[Piece], n_contexts: int, waiting: Iterable[Piece] = ()
) -> Iterator[Piece]:
    """The contexts of each split in pieces of n_contexts, each as soon as it is full; the rests
    come last. waiting: contexts that come before the others of their split."""
    held: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    for piece in waiting:
        held[piece.split].append(piece)
    n_held = {split: sum(len(piece.tokens) for piece in held[split]) for split in SPLITS}
    for piece in pieces:
        split = piece.split
        held[split].append(piece)
        n_held[split] += len(piece.tokens)
        if n_held[split] >= n_contexts:
            whole, held[split] = join(held[split]), []
            n_held[split] %= n_contexts
            full = len(whole.tokens) - n_held[split]
            if len(whole.tokens) == n_contexts:
                yield _resumable(whole, held)
            else:
                for first in range(0, full, n_contexts):
                    yield whole.part(slice(first, first + n_contexts))
                held[split] = [whole.part(slice(full, None))] if n_held[split] else []
    yield from (join(rows)._replace(state=None) for rows in held.values() if rows)


def _resumable(shard: Piece, held: dict[str, list[Piece]]) -> Piece:
    """The shard with what comes behind it is read from, if it can be said."""
    if shard.state is None:
        return shard
    waiting = [join(rows)._replace(state=None) for rows in held.values() if rows]
    return shard._replace(state=Resume(shard.state(), waiting))
