"""Shuffled, resumable reads of a cache: batches of tokens drawn across all shards, in memory that
does not grow with the cache.

An epoch is a shuffled order of blocks of contexts. Consecutive blocks fill a buffer, whose tokens
are shuffled again and handed out in batches; a thread may read the next buffer while one is used.
The order depends on seed, epoch and batch size alone, so that a batch number is all there is to
resume from.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from saelab.activations.ahead import Ahead, Check
from saelab.activations.buffers import PAGE, Arrays, Buffer, Way
from saelab.activations.stored import Stored

BLOCK = 16  # contexts that stay together until the buffer is shuffled
BUFFER = 262_144  # tokens shuffled together


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

    Yields float32 [size, D] on the device, or (`single` False) a dict of them by name. Only tokens
    that count are read; those of an epoch that do not fill a batch are left to other epochs. Within
    `with batches:` a thread reads ahead, by default for a CUDA card; it ends with the block.
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
        device: torch.device | str = "cpu",
        ahead: bool | None = None,
    ) -> None:
        self.files, self.keys, self.size, self.seed, self.single = files, keys, size, seed, single
        self.blocks = [block for i, file in enumerate(files) for block in _blocks(i, file.counted)]
        block_tokens = BLOCK * max(1, context - 1)
        self.per_buffer = max(1, BUFFER // block_tokens)
        self.per_page = max(1, PAGE // block_tokens)
        self.per_epoch = sum(block.n_tokens for block in self.blocks) // size
        self.number = start
        self.device = torch.device(device)
        self.ahead = self.device.type == "cuda" if ahead is None else ahead
        self.way = Way(self.device, beside=self.ahead)
        self._thread: Ahead[Buffer] | None = None
        self._stream = self._generate(self._filled(start, [self.way.buffer()], lambda: None))

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Tensor | Arrays:  # type: ignore[override]
        batch = next(self._stream)
        self.number += 1
        return batch[next(iter(batch))] if self.single else batch

    def __enter__(self) -> "Batches":
        if self.ahead:
            buffers = [self.way.buffer(), self.way.buffer()]
            self._thread = Ahead(partial(self._filled, self.number, buffers), len(buffers))
            self._stream = self._generate(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, if one reads ahead."""
        if self._thread is not None:
            self._thread.close()
            self.way.wait()

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

    def _filled(self, start: int, buffers: list[Buffer], check: Check) -> Iterator[Buffer]:
        """The buffers from batch number `start` on; each is used again when all others have
        been."""
        for job, buffer in zip(self._jobs(start), cycle(buffers), strict=False):
            with self.way.into(buffer):
                self._fill(job, buffer, check)
                buffer.filled.record()
            yield buffer

    def _fill(self, job: _Job, buffer: Buffer, check: Check) -> None:
        """A buffer's tokens as they lie in the cache, and the shuffled order of those that the job
        hands out."""
        n_tokens, at = sum(block.n_tokens for block in job.blocks), 0
        for shard in sorted({block.shard for block in job.blocks}):
            mine = [block for block in job.blocks if block.shard == shard]
            with self.files[shard].open() as file:
                mask_CT = file.get_tensor("counted").bool() if self.files[shard].masked else None
                for first in range(0, len(mine), self.per_page):
                    check()
                    page = mine[first : first + self.per_page]
                    end = at + sum(block.n_tokens for block in page)
                    for name, acts_CTD in self._tensors(file):
                        into_ND = self.way.room(buffer, name, n_tokens, acts_CTD)[at:end]
                        self.way.copy(into_ND, partial(_copy, acts_CTD, mask_CT, page))
                    at = end
        order_N = np.random.default_rng(job.seed).permutation(n_tokens)[job.first : job.end]
        buffer.order_N = torch.from_numpy(order_N).to(self.way.device)

    def _tensors(self, file: Any) -> Iterator[tuple[str, Tensor]]:
        """What an open shard holds of the arrays, mapped, by the names that they are read by."""
        for name, key in self.keys.items():
            yield from Stored.read(file, key).tensors(name).items()

    def _floats(self, batch: Arrays) -> Arrays:
        """A batch as it is computed with, made of what is stored where that lies."""
        return {name: Stored.among(batch, name).float() for name in self.keys}

    def _generate(self, filled: Iterator[Buffer]) -> Iterator[Arrays]:
        # Tokens of a buffer's end that wait for the next buffer to fill their batch.
        rest: Arrays = {}
        for buffer in filled:
            buffer.filled.wait()
            n_tokens, first = len(buffer.order_N), 0
            n_rest = len(next(iter(rest.values()))) if rest else 0
            for end in range(self.size - n_rest, n_tokens + 1, self.size):
                yield self._floats(_joined(rest, buffer.gather(first, end)))
                rest, first = {}, end
            if first < n_tokens:
                rest = _joined(rest, buffer.gather(first, n_tokens))
            buffer.left.record()


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


def _joined(one: Arrays, other: Arrays) -> Arrays:
    return {name: torch.cat([one[name], other[name]]) for name in other} if one else other


def counts(path: Path) -> np.ndarray:
    """[C] how many positions of each context of a shard count; of none where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("counted").sum(1).numpy()
    except SafetensorError:
        return np.zeros(0, int)
