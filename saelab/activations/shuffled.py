"""The shuffled tokens of a cache, in memory that does not grow with it.

An epoch is a shuffled order of blocks of contexts. Consecutive blocks fill a buffer, whose tokens
are shuffled again. The order depends on seed, epoch and batch size alone, so that a batch number is
all there is to resume from.
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

from saelab.activations.ahead import Check
from saelab.activations.buffers import PAGE, Buffer, Way
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


class Shuffled:
    """Fills buffers with the tokens of shards that count; those of an epoch that do not fill a
    batch are left to other epochs.

    keys: which array of a shard each name is. size: tokens of a batch.
    """

    def __init__(
        self,
        files: list[File],
        keys: dict[str, str],
        context: int,
        size: int,
        seed: int,
        device: torch.device | str,
    ) -> None:
        self.files, self.keys, self.size, self.seed = files, keys, size, seed
        self.device = torch.device(device)
        self.blocks = [block for i, file in enumerate(files) for block in _blocks(i, file.counted)]
        block_tokens = BLOCK * max(1, context - 1)
        self.per_buffer = max(1, BUFFER // block_tokens)
        self.per_page = max(1, PAGE // block_tokens)
        self.per_epoch = sum(block.n_tokens for block in self.blocks) // size

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

    def filled(self, start: int, n_buffers: int, check: Check) -> Iterator[Buffer]:
        """The buffers from batch number `start` on, n of them in turn: several are for a thread,
        which fills one while another is used."""
        way = Way(self.device, beside=n_buffers > 1)
        buffers = cycle([way.buffer() for _ in range(n_buffers)])
        for job, buffer in zip(self._jobs(start), buffers, strict=False):
            with way.into(buffer):
                self._fill(job, buffer, way, check)
                buffer.filled.record()
            yield buffer

    def _fill(self, job: _Job, buffer: Buffer, way: Way, check: Check) -> None:
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
                        into_ND = way.room(buffer, name, n_tokens, acts_CTD)[at:end]
                        way.copy(into_ND, partial(_copy, acts_CTD, mask_CT, page))
                    at = end
        order_N = np.random.default_rng(job.seed).permutation(n_tokens)[job.first : job.end]
        buffer.order_N = torch.from_numpy(order_N).to(self.device)

    def _tensors(self, file: Any) -> Iterator[tuple[str, Tensor]]:
        """What an open shard holds of the arrays, mapped, by the names that they are read by."""
        for name, key in self.keys.items():
            yield from Stored.read(file, key).tensors(name).items()


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


def counts(path: Path) -> np.ndarray:
    """[C] how many positions of each context of a shard count; of none where it cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return file.get_tensor("counted").sum(1).numpy()
    except SafetensorError:
        return np.zeros(0, int)
