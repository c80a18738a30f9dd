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

    def part(self, rows: slice) -> "Piece":
        """The contexts of those rows."""
        return Piece(self.split, *(column[rows] for column in self[1:]))


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
        `acts` is asked for."""
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
    """Pieces of one split as one."""
    columns = zip(*(piece[1:] for piece in pieces), strict=True)
    return Piece(pieces[0].split, *(torch.cat(column) for column in columns))


def shards(pieces: Iterable[Piece], n_contexts: int) -> Iterator[Piece]:
    """The contexts of each split in pieces of n_contexts, each as soon as it is full; the rests
    come last."""
    waiting: dict[str, list[Piece]] = {split: [] for split in SPLITS}
    n_waiting = dict.fromkeys(SPLITS, 0)
    for piece in pieces:
        split = piece.split
        waiting[split].append(piece)
        n_waiting[split] += len(piece.tokens)
        if n_waiting[split] >= n_contexts:
            whole = join(waiting[split])
            n_waiting[split] %= n_contexts
            full = len(whole.tokens) - n_waiting[split]
            for first in range(0, full, n_contexts):
                yield whole.part(slice(first, first + n_contexts))
            waiting[split] = [whole.part(slice(full, None))] if n_waiting[split] else []
    yield from (join(rows) for rows in waiting.values() if rows)
