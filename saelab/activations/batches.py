"""Shuffled, resumable reads of a cache: batches of tokens drawn across all shards, in memory that
does not grow with the cache.

An epoch is a shuffled order of blocks of contexts. Consecutive blocks fill a buffer, whose tokens
are shuffled again and handed out in batches; while one buffer is used the next one is read. The
order depends on seed, epoch and batch size alone, so that a batch number is all there is to resume
from.
"""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelab.activations.stored import Stored

BLOCK = 16  # contexts that stay together until the buffer is shuffled
BUFFER = 262_144  # tokens shuffled together

Buffer = dict[str, Tensor]


class File(NamedTuple):
    """A shard to read from."""

    open: Callable[[], Any]
    """opens its safetensors file"""
    counted: np.ndarray
    """[C]: how many positions of each context count"""
    masked: bool
    """whether its array `counted` says which; if not, every position but the first does"""


class Block(NamedTuple):
    """Contexts of one shard that stay together."""

    shard: int
    first: int
    end: int
    n_tokens: int


class _Job(NamedTuple):
    """One buffer: its blocks in order of reading, and its tokens first to end of the shuffled order
    that `seed` draws."""

    blocks: list[Block]
    seed: tuple[int, int, int]
    first: int
    end: int


class Batches:
    """Endless iterator over batches; `number` is that of the next one, `per_epoch` how many an
    epoch has.

    Yields float32 [size, D], or (`single` False) a dict of them by name. Only tokens that count are
    read; those of an epoch that do not fill a batch are left to other epochs.
    """

    def __init__(
        self,
        files: list[File],
        keys: dict[str, str],
        context: int,
        size: int,
        seed: int,
        start: int,
        single: bool,
    ) -> None:
        self.files, self.keys, self.size, self.seed, self.single = files, keys, size, seed, single
        self.blocks = [block for i, file in enumerate(files) for block in _blocks(i, file.counted)]
        self.per_buffer = max(1, BUFFER // (BLOCK * max(1, context - 1)))
        self.per_epoch = sum(block.n_tokens for block in self.blocks) // size
        self.number = start
        self._stream = self._generate(start)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Tensor | Buffer:  # type: ignore[override]
        batch = next(self._stream)
        self.number += 1
        return batch[next(iter(batch))] if self.single else batch

    def _jobs(self, start: int) -> Iterator[_Job]:
        """The buffers from batch number `start` on, epoch after epoch."""
        epoch, within = divmod(start, self.per_epoch)
        while True:
            order = np.random.default_rng((self.seed, epoch)).permutation(len(self.blocks))
            skip, left = within * self.size, self.per_epoch * self.size
            for number, at in enumerate(range(0, len(order), self.per_buffer)):
                blocks = sorted(self.blocks[i] for i in order[at : at + self.per_buffer])
                n_tokens = sum(block.n_tokens for block in blocks)
                if skip < min(n_tokens, left):
                    yield _Job(blocks, (self.seed, epoch, number), skip, min(n_tokens, left))
                skip, left = max(0, skip - n_tokens), left - n_tokens
            epoch, within = epoch + 1, 0

    def _read(self, job: _Job, spare: Buffer) -> tuple[Buffer, Tensor]:
        """A buffer's tokens as they lie in the cache, and the shuffled order of those that the job
        hands out.

        They are copied into `spare`, a buffer read before, where it is large enough: fresh memory
        costs more than the copy.
        """
        n_tokens, at = sum(block.n_tokens for block in job.blocks), 0
        for shard in sorted({block.shard for block in job.blocks}):
            mine = [block for block in job.blocks if block.shard == shard]
            rows = sum(block.n_tokens for block in mine)
            with self.files[shard].open() as file:
                mask_CT = file.get_tensor("counted").bool() if self.files[shard].masked else None
                for name, acts_CTD in self._tensors(file):
                    width = acts_CTD.shape[-1]
                    if name not in spare or len(spare[name]) < n_tokens:
                        spare[name] = torch.empty(n_tokens, width, dtype=acts_CTD.dtype)
                    _copy(acts_CTD, mask_CT, mine, spare[name][at : at + rows])
            at += rows
        order_N = np.random.default_rng(job.seed).permutation(n_tokens)[job.first : job.end]
        return spare, torch.from_numpy(order_N)

    def _floats(self, batch: Buffer) -> Buffer:
        return {name: Stored.among(batch, name).float() for name in self.keys}

    def _tensors(self, file: Any) -> Iterator[tuple[str, Tensor]]:
        """What an open shard holds of the arrays, by the names that they are read by."""
        for name, key in self.keys.items():
            yield from Stored.read(file, key).tensors(name).items()

    def _buffers(self, start: int) -> Iterator[tuple[Buffer, Tensor]]:
        """Buffers and their orders; each is valid until the next one is asked for."""
        spare: Buffer = {}
        for job in self._jobs(start):
            spare, order_N = self._read(job, spare)
            yield spare, order_N

    def _generate(self, start: int) -> Iterator[Buffer]:
        # Tokens of a buffer's end that wait for the next buffer to fill their batch.
        rest: Buffer = {}
        for whole, order_N in self._buffers(start):
            first = 0
            n_rest = len(next(iter(rest.values()))) if rest else 0
            for end in range(self.size - n_rest, len(order_N) + 1, self.size):
                yield self._floats(_joined(rest, _gather(whole, order_N[first:end])))
                rest, first = {}, end
            if first < len(order_N):
                rest = _joined(rest, _gather(whole, order_N[first:]))


def _blocks(shard: int, counted_C: np.ndarray) -> Iterator[Block]:
    for first in range(0, len(counted_C), BLOCK):
        part = counted_C[first : first + BLOCK]
        yield Block(shard, first, first + len(part), int(part.sum()))


def _copy(acts_CTD: Tensor, mask_CT: Tensor | None, blocks: list[Block], into_ND: Tensor) -> None:
    """The tokens of the blocks that count."""
    spans = [slice(block.first, block.end) for block in blocks]
    if mask_CT is None:
        length, width = acts_CTD.shape[1:]
        torch.cat([acts_CTD[span, 1:] for span in spans], out=into_ND.view(-1, length - 1, width))
    else:
        torch.cat([acts_CTD[span][mask_CT[span]] for span in spans], out=into_ND)


def _gather(whole: Buffer, rows_N: Tensor) -> Buffer:
    return {name: torch.index_select(tensor, 0, rows_N) for name, tensor in whole.items()}


def _joined(one: Buffer, other: Buffer) -> Buffer:
    return {name: torch.cat([one[name], other[name]]) for name in other} if one else other


def counts(path: Path) -> np.ndarray:
    """[C] how many positions of each context of a shard count; of none where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("counted").sum(1).numpy()
    except SafetensorError:
        return np.zeros(0, int)
