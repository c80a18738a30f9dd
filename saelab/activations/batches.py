"""Batches of tokens: rows of buffers, each of which is shuffled by itself."""

from collections.abc import Iterator
from functools import partial
from typing import Any, Protocol

import torch

from saelab import joint
from saelab.activations.ahead import Ahead, Check
from saelab.activations.buffers import Arrays, Buffer
from saelab.activations.stored import Stored


class Filler(Protocol):
    """What fills the buffers: a cache's shards, or a model."""

    device: torch.device
    """where the buffers lie"""

    def filled(self, start: int, n_buffers: int, check: Check) -> Iterator[Buffer]:
        """The buffers from batch number `start` on, without end, n of them in turn; `check` is
        called between parts of the work, as it may be that of a thread."""
        ...


class Batches:
    """Endless iterator over batches of `size` tokens; `number` is that of the next one.

    Yields float32 [size, D] on the filler's device, or (`single` False) a dict of them by name.
    Within `with batches:` a thread fills buffers ahead, by default on a CUDA card, and ends with
    the block.
    """

    def __init__(
        self,
        filler: Filler,
        names: list[str],
        size: int,
        start: int,
        single: bool,
        ahead: bool | None = None,
    ) -> None:
        self.filler, self.names, self.size, self.single = filler, names, size, single
        self.number = start
        self.ahead = filler.device.type == "cuda" if ahead is None else ahead
        self._thread: Ahead[Buffer] | None = None
        self._stream = self._generate(filler.filled(start, 1, lambda: None))

    @property
    def per_epoch(self) -> int:
        """How many batches an epoch of a cache has."""
        filler: Any = self.filler
        return filler.per_epoch

    def __iter__(self) -> "Batches":
        return self

    def __next__(self) -> Any:
        batch = next(self._stream)
        self.number += 1
        return batch[self.names[0]] if self.single else batch

    def __enter__(self) -> "Batches":
        if self.ahead:
            self._thread = Ahead(partial(self.filler.filled, self.number, 2), 2)
            self._stream = self._generate(self._thread)
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread, if there is one."""
        if self._thread is not None:
            self._thread.close()
            if self.filler.device.type == "cuda":  # what it fills is given up next
                torch.cuda.synchronize(self.filler.device)

    def _floats(self, batch: Arrays) -> Arrays:
        """A batch as it is computed with, made of what is stored where that lies."""
        return {
            name: joint.beside([Stored.among(batch, one).float() for one in joint.parts(name)])
            for name in self.names
        }

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


def _joined(one: Arrays, other: Arrays) -> Arrays:
    return {name: torch.cat([one[name], other[name]]) for name in other} if one else other
