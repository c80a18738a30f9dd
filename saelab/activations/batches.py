"""Shuffled, resumable reads of a cache: batches of tokens drawn across all shards, in memory that does not grow with the cache.

An epoch is a shuffled order of blocks of contexts. Consecutive blocks fill a buffer, whose tokens are shuffled again and handed
out in batches. The order depends on seed, epoch and batch size alone, so that a batch number is all there is to resume from.
"""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

BLOCK = 16  # contexts that stay together until the buffer is shuffled
BUFFER = 262_144  # tokens shuffled together

Buffer = dict[str, Tensor]


class Batches:
    """Endless iterator over batches; `number` is that of the next one.

    Yields float32 [size, D], or (`single` False) a dict of them by name. Position 0 of each context is left out; the tokens of an
    epoch that do not fill a batch are left to other epochs.
    """

    def __init__(
        self,
        files: list[tuple[Path, int]],
        keys: dict[str, str],
        context: int,
        size: int,
        seed: int,
        start: int,
        single: bool,
    ) -> None:
        self.files, self.keys, self.size, self.seed, self.single = files, keys, size, seed, single
        self.blocks = [(i, first, min(first + BLOCK, n)) for i, (_, n) in enumerate(files) for first in range(0, n, BLOCK)]
        self.tokens_per_context = context - 1
        n_tokens = sum(n for _, n in files) * self.tokens_per_context
        self.per_epoch = n_tokens // size
        self.number = start
        self._stream = self._generate(start)

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Tensor | Buffer:  # type: ignore[override]
        batch = next(self._stream)
        self.number += 1
        return batch[next(iter(batch))] if self.single else batch

    def _groups(self, epoch: int) -> list[list[tuple[int, int, int]]]:
        """The epoch's blocks in shuffled order, grouped into buffers."""
        order = np.random.default_rng((self.seed, epoch)).permutation(len(self.blocks))
        per_buffer = max(1, BUFFER // (BLOCK * self.tokens_per_context))
        return [[self.blocks[i] for i in order[a : a + per_buffer]] for a in range(0, len(order), per_buffer)]

    def _read(self, epoch: int, number: int, group: list[tuple[int, int, int]]) -> Buffer:
        """The tokens of a buffer, shuffled, in the cache's dtype."""
        parts: dict[str, list[Tensor]] = {name: [] for name in self.keys}
        for shard in sorted({block[0] for block in group}):
            with safe_open(self.files[shard][0], "pt") as file:
                for name, key in self.keys.items():
                    view = file.get_slice(key)
                    parts[name] += [view[a:b][:, 1:].flatten(0, 1) for i, a, b in group if i == shard]
        whole = {name: torch.cat(pieces) for name, pieces in parts.items()}
        n_tokens = len(next(iter(whole.values())))
        order = torch.from_numpy(np.random.default_rng((self.seed, epoch, number)).permutation(n_tokens))
        return {name: tensor[order] for name, tensor in whole.items()}

    def _buffers(self, epoch: int, skip: int) -> Iterator[Buffer]:
        """The epoch's buffers after its first `skip` tokens, the next one being read while one is used."""
        groups = self._groups(epoch)
        sizes = [sum(b - a for _, a, b in group) * self.tokens_per_context for group in groups]
        first = 0
        while skip >= sizes[first]:
            skip -= sizes[first]
            first += 1
        with ThreadPoolExecutor(1) as pool:
            waiting: Future[Buffer] | None = pool.submit(self._read, epoch, first, groups[first])
            for number in range(first, len(groups)):
                assert waiting is not None
                buffer = waiting.result()
                following = number + 1
                waiting = pool.submit(self._read, epoch, following, groups[following]) if following < len(groups) else None
                yield {name: tensor[skip:] for name, tensor in buffer.items()}
                skip = 0

    def _generate(self, start: int) -> Iterator[Buffer]:
        epoch, within = divmod(start, self.per_epoch)
        while True:
            left = self.per_epoch - within
            rest: Buffer = {}
            for buffer in self._buffers(epoch, within * self.size):
                rest = {name: torch.cat([rest[name], t]) if rest else t for name, t in buffer.items()}
                n_here = min(left, len(next(iter(rest.values()))) // self.size)
                for i in range(n_here):
                    yield {name: t[i * self.size : (i + 1) * self.size].float() for name, t in rest.items()}
                rest = {name: t[n_here * self.size :] for name, t in rest.items()}
                left -= n_here
                if not left:
                    break
            epoch, within = epoch + 1, 0
