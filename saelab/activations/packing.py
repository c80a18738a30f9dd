"""Packing: documents become contexts of equal length, each starting with BOS, documents separated
by end-of-text."""

from collections.abc import Iterable, Iterator

import numpy as np


class Packer:
    """Cuts a stream of documents into contexts: `bos`, then the next context - 1 tokens; every
    document is followed by `eos`."""

    def __init__(self, context: int, bos: int, eos: int) -> None:
        self.size, self.bos, self.eos = context - 1, bos, eos
        self.tokens: list[int] = []
        self.owners: list[int] = []

    def add(self, number: int, ids: list[int]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Append document `number`; yield the contexts that are now full.

        Yields (tokens [context] int64, document of each position [context] int64); position 0
        carries the document of position 1.
        """
        self.tokens += [*ids, self.eos]
        self.owners += [number] * (len(ids) + 1)
        start = 0
        while len(self.tokens) - start >= self.size:
            owners = self.owners[start : start + self.size]
            tokens = [self.bos, *self.tokens[start : start + self.size]]
            yield np.array(tokens, dtype=np.int64), np.array([owners[0], *owners], dtype=np.int64)
            start += self.size
        self.tokens, self.owners = self.tokens[start:], self.owners[start:]


def pack(
    documents: Iterable[tuple[int, list[int]]], context: int, bos: int, eos: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """All full contexts of a stream of (document number, token ids); the unfilled rest at the end
    is dropped."""
    packer = Packer(context, bos, eos)
    for number, ids in documents:
        yield from packer.add(number, ids)
