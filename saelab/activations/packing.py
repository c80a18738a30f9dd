"""Packing: documents become contexts of equal length, each starting with BOS."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np


class Packed(NamedTuple):
    """A context; all [T]."""

    tokens: np.ndarray
    """int64"""
    owners: np.ndarray
    """int64: document of each position; position 0 carries that of position 1"""
    counted: np.ndarray
    """bool: False at BOS and in padding"""


class Documents:
    """Cuts a stream of documents into contexts: `bos`, then the next context - 1 tokens; every
    document is followed by `eos`."""

    n_cut = 0  # no document loses a token

    def __init__(self, context: int, bos: int, eos: int) -> None:
        self.size, self.bos, self.eos = context - 1, bos, eos
        self.counted = np.arange(context) > 0
        self.tokens: list[int] = []
        self.owners: list[int] = []

    def add(self, number: int, ids: list[int]) -> Iterator[Packed]:
        """Append document `number`; yield the contexts that are now full."""
        self.tokens += [*ids, self.eos]
        self.owners += [number] * (len(ids) + 1)
        start = 0
        while len(self.tokens) - start >= self.size:
            owners = self.owners[start : start + self.size]
            tokens = [self.bos, *self.tokens[start : start + self.size]]
            yield Packed(np.array(tokens), np.array([owners[0], *owners]), self.counted)
            start += self.size
        self.tokens, self.owners = self.tokens[start:], self.owners[start:]


class OnePerContext:
    """Makes a context of each document: `bos`, its first context - 1 tokens, and as much `eos` as
    fills the context up. Causal models never look right, so the padding changes nothing."""

    def __init__(self, context: int, bos: int, eos: int) -> None:
        self.size, self.bos, self.eos = context - 1, bos, eos
        self.n_cut = 0

    def add(self, number: int, ids: list[int]) -> Iterator[Packed]:
        """The context of document `number`; none if it has no token."""
        self.n_cut += len(ids) > self.size
        n_tokens = min(len(ids), self.size)
        tokens = np.full(self.size + 1, self.eos)
        tokens[: n_tokens + 1] = [self.bos, *ids[:n_tokens]]
        position = np.arange(self.size + 1)
        if n_tokens:
            yield Packed(
                tokens, np.full_like(tokens, number), (position > 0) & (position <= n_tokens)
            )


PACKERS = {"documents": Documents, "one-per-context": OnePerContext}


def pack(
    documents: Iterable[tuple[int, list[int]]], context: int, bos: int, eos: int
) -> Iterator[Packed]:
    """All full contexts of a stream of (document number, token ids); the unfilled rest at the end
    is dropped."""
    packer = Documents(context, bos, eos)
    for number, ids in documents:
        yield from packer.add(number, ids)
