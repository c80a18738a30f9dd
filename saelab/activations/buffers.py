"""Buffers of tokens on a device, and the way there.

On a CUDA card a stream of its own fills them from pinned memory, while another one computes;
elsewhere the same calls wait for nothing. Shapes: N tokens, D width.
"""

from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import Tensor

PAGE = 16_384  # tokens that are copied to a device at once
PAGES = 3  # one is written while others are copied

Arrays = dict[str, Tensor]


class Buffer:
    """Arrays [N, D] on a device, and the order in which their rows are handed out."""

    def __init__(self, streams: Any) -> None:
        self.arrays: Arrays = {}
        self.order_N = torch.empty(0, dtype=torch.int64)
        self.filled, self.left = streams.Event(), streams.Event()

    def gather(self, first: int, end: int) -> Arrays:
        """The rows that the order has from first to end."""
        rows_B = self.order_N[first:end]
        return {name: torch.index_select(held, 0, rows_B) for name, held in self.arrays.items()}


class Way:
    """What fills buffers on a device, in one thread; beside: on a stream of its own."""

    def __init__(self, device: torch.device, beside: bool) -> None:
        self.device, self.is_cuda = device, device.type == "cuda"
        self.streams: Any = torch.cuda if self.is_cuda else torch.cpu
        options = {"device": device} if self.is_cuda else {}
        self.side = self.streams.Stream(**options) if beside else None
        pages = [(torch.empty(0, dtype=torch.uint8), self.streams.Event()) for _ in range(PAGES)]
        self._pages, self._turn = pages, cycle(range(PAGES))

    def buffer(self) -> Buffer:
        """An empty one."""
        return Buffer(self.streams)

    def into(self, buffer: Buffer) -> Any:
        """Within the block the buffer may be written, after all that was to be read of it."""
        if self.side is not None:
            self.side.wait_event(buffer.left)
        return self.streams.stream(self.side)

    def room(self, buffer: Buffer, name: str, n_tokens: int, like: Tensor) -> Tensor:
        """A buffer's array [n_tokens, D] of the width and dtype of `like`; memory that is there is
        used again, as fresh memory costs more than a copy."""
        held = buffer.arrays.get(name)
        if held is None or len(held) < n_tokens:
            shape = (n_tokens, like.shape[-1])
            held = torch.empty(shape, dtype=like.dtype, device=self.device)
            buffer.arrays[name] = held
        return held[:n_tokens]

    def copy(self, rows_ND: Tensor, write: Callable[[Tensor], object]) -> None:
        """Let `write` fill rows of a buffer's array: on the CPU in their place, else by a page of
        the host's memory."""
        if self.device.type == "cpu":
            write(rows_ND)
            return
        number = next(self._turn)
        page, copied = self._pages[number]
        copied.synchronize()
        n_bytes = rows_ND.numel() * rows_ND.element_size()
        if len(page) < n_bytes:
            page = torch.empty(n_bytes, dtype=torch.uint8, pin_memory=self.is_cuda)
            self._pages[number] = page, copied
        here_ND = page[:n_bytes].view(rows_ND.dtype).view(rows_ND.shape)
        write(here_ND)
        rows_ND.copy_(here_ND, non_blocking=True)
        copied.record()
