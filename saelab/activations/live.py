"""Batches of a model's activations over a text while it runs, without a cache.

A ring holds one window at a time: as many contexts that follow each other in the text as it has
room for. Their tokens are shuffled and handed out, then the model fills it with the next ones; at
the end of the text it begins anew, every window shuffled otherwise. The order depends on text, ring
and seed alone, so that a batch number is all there is to resume from.

Shapes: C contexts, T positions, D width, N tokens.
"""

import hashlib
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

import numpy as np
import torch

from saelab.activations.ahead import Check
from saelab.activations.batches import Batches
from saelab.activations.buffers import Buffer
from saelab.activations.source import Piece, Source, shards
from saelab.activations.stored import Stored
from saelab.errors import FailedRun, UsageError


class Window(NamedTuple):
    """Contexts that are in the ring together."""

    number: int
    """counted over all epochs"""
    epoch: int
    first: int
    """number of the first one among the training contexts of the text"""
    piece: Piece

    def row(self) -> dict[str, Any]:
        """Which contexts these are, for a file: their numbers and the SHA-256 of their tokens."""
        tokens = self.piece.tokens.int().contiguous().numpy().tobytes()
        numbers = {"window": self.number, "epoch": self.epoch, "first_context": self.first}
        size = {"contexts": len(self.piece.tokens), "tokens": int(self.piece.counted.sum())}
        return {**numbers, **size, "sha256": hashlib.sha256(tokens).hexdigest()}


class Live:
    """The training contexts of a source as batches, in a ring of about n_tokens on a device; those
    that are held out are passed over. What the source gives is kept in its plan's dtype.

    passed is called with every window, before it is used or where it is only passed over on the way
    to a later batch.

        live = Live(source, 262_144, "cuda", print)
        batches = live.batches(["blocks.1.hook_out"], size=2048, seed=0)

    Raises UsageError, when a batch is asked for, where the text does not fill the ring once.
    """

    def __init__(
        self,
        source: Source,
        n_tokens: int,
        device: torch.device | str,
        passed: Callable[[Window], object] = lambda _: None,
    ) -> None:
        self.source, self.plan, self.passed = source, source.plan, passed
        self.device = torch.device(device)
        self.n_contexts = max(1, n_tokens // self.plan.context)
        self.epoch: tuple[int, int] | None = None  # its windows and tokens, once one has ended
        self.ring: dict[str, Stored] = {}
        self.holds: int | None = None  # the number of the window that is in the ring

    def batches(
        self,
        hooks: list[str],
        size: int,
        seed: int = 0,
        start: int = 0,
        device: torch.device | str | None = None,
    ) -> Batches:
        """Endless batches [size, D] float32 by name from batch number `start` on, on the ring's
        device. There is one ring: of several such iterators only one at a time is to be used."""
        if device is not None and torch.device(device) != self.device:
            raise ValueError(f"the ring lies on {self.device}, not on {device}")
        return Batches(_Filler(self, size, seed), hooks, size, start, False, ahead=False)

    def windows(self, n_skipped: int) -> Iterator[tuple[Window, int]]:
        """The windows of the text, epoch after epoch, from the first on that is not wholly among
        n_skipped tokens; with each, how many of its tokens are."""
        before, left = 0, n_skipped
        for epoch in count():
            if self.epoch is not None and left >= self.epoch[1]:
                before, left = before + self.epoch[0], left - self.epoch[1]
                continue
            n_windows = n_tokens = 0
            for window in self._epoch(epoch, before):
                self.passed(window)
                size = int(window.piece.counted.sum())
                if left < size:
                    yield window, left
                n_windows, n_tokens, left = n_windows + 1, n_tokens + size, max(0, left - size)
            self.epoch, before = (n_windows, n_tokens), before + n_windows

    def _epoch(self, epoch: int, number: int) -> Iterator[Window]:
        """The windows of the whole text, counted from `number` on."""
        first = 0
        training = (piece for piece in self.source.pieces() if piece.split == "train")
        for piece in shards(training, self.n_contexts):
            if not first and len(piece.tokens) < self.n_contexts:
                raise self._too_short(len(piece.tokens))
            self.source.names.clear()  # of documents, of which a text may have millions
            yield Window(number, epoch, first, piece)
            number, first = number + 1, first + len(piece.tokens)
        if not first:
            raise self._too_short(0)

    def _too_short(self, n_contexts: int) -> UsageError:
        context = self.plan.context
        least = "a longer one is needed" if not n_contexts else f"--ring {n_contexts * context}"
        return UsageError(
            f"{self.plan.text} gives {n_contexts * context} training positions, a ring of "
            f"{self.n_contexts * context} is not full once: {least}, or a cache of `saelab capture`"
        )

    def fill(self, window: Window) -> None:
        """Run the model over a window, unless it is in the ring already. Raises FailedRun for
        activations that are not finite."""
        if self.holds == window.number:
            return
        self.holds, first = None, 0
        for part in self.source.acts(window.piece):
            end = first + len(next(iter(part.values())))
            for name, acts in part.items():
                into = self._room(name)[first:end]
                into.round(acts.flatten(2))
                if not into.is_finite:
                    contexts = f"contexts {window.first + first} to {window.first + end - 1}"
                    raise FailedRun(f"activations at {name} are not finite in {contexts}")
            first = end
        self.holds = window.number

    def _room(self, name: str) -> Stored:
        """The ring's array [C, T, D] of a hook."""
        if name not in self.ring:
            shape = (self.n_contexts, self.plan.context, self.plan.arrays[name])
            self.ring[name] = Stored.empty(shape, self.plan.dtype, self.device)
        return self.ring[name]

    def buffer(self, order_N: torch.Tensor) -> Buffer:
        """The ring with the rows, counted over all positions, that are handed out."""
        buffer = Buffer(torch.cpu)
        buffer.order_N = order_N.to(self.device)
        for name, held in self.ring.items():
            tensors = held.tensors(name).items()
            buffer.arrays |= {key: tensor.flatten(0, 1) for key, tensor in tensors}
        return buffer


class _Filler:
    """The ring in the order of a batch size and a seed."""

    def __init__(self, live: Live, size: int, seed: int) -> None:
        self.live, self.size, self.seed, self.device = live, size, seed, live.device

    def filled(self, start: int, n_buffers: int, check: Check) -> Iterator[Buffer]:
        """See `Filler`: there is one buffer, the ring."""
        for window, skip in self.live.windows(start * self.size):
            check()
            self.live.fill(window)
            rows_N = window.piece.counted.flatten().nonzero().squeeze(1)
            random = np.random.default_rng((self.seed, window.number))
            order_N = torch.from_numpy(random.permutation(len(rows_N))[skip:])
            yield self.live.buffer(rows_N[order_N])
