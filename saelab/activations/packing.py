"""Packing: documents become contexts of equal length, each starting with BOS."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np


class Packed(NamedTuple):
    """A context; all [T]."""

    tokens: np.ndarray
    """int64"""
    owners: np.ndarray
    """int64: document of each position; position 0 carries that of position 1"""
    counted: np.ndarray
    """bool: False at BOS and in padding"""


Pieces = Iterable[Sequence[int]]  # a document's token ids, of which a long one has several


def _marks(token: int | None) -> list[int]:
    return [] if token is None else [token]


class Documents:
    """Cuts a stream of documents into contexts: `bos`, where there is one, then the next tokens;
    every document is followed by `eos`, where there is one."""

    n_cut = 0  # no document loses a token

    def __init__(self, context: int, bos: int | None, eos: int | None) -> None:
        self.bos, self.eos = _marks(bos), _marks(eos)
        self.size = context - len(self.bos)
        self.counted = np.arange(context) > 0
        self.tokens: list[int] = []
        self.owners: list[int] = []

    def state(self) -> dict[str, Any]:
        """What `restore` of another one takes to go on as this one would: plain JSON."""
        return {"tokens": [*self.tokens], "owners": [*self.owners]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on as the one whose state this is."""
        self.tokens, self.owners = [*state["tokens"]], [*state["owners"]]

    def add(self, number: int, pieces: Pieces) -> Iterator[Packed]:
        """Append document `number`; yield the contexts that are now full."""
        for ids in pieces:
            yield from self._append(number, ids)
        yield from self._append(number, self.eos)

    def _append(self, number: int, ids: Sequence[int]) -> Iterator[Packed]:
        self.tokens += ids
        self.owners += [number] * len(ids)
        start = 0
        while len(self.tokens) - start >= self.size:
            owners = self.owners[start : start + self.size]
            tokens = [*self.bos, *self.tokens[start : start + self.size]]
            owners = [*owners[: len(self.bos)], *owners]
            yield Packed(np.array(tokens), np.array(owners), self.counted)
            start += self.size
        self.tokens, self.owners = self.tokens[start:], self.owners[start:]


class OnePerContext:
    """Makes a context of each document: `bos`, where there is one, its first tokens, and as much
    `eos` (token 0 where there is none) as fills the context up. Causal models never look right, so
    the padding changes nothing."""

    def __init__(self, context: int, bos: int | None, eos: int | None) -> None:
        self.context, self.bos, self.eos = context, _marks(bos), eos or 0
        self.n_cut = 0

    def state(self) -> dict[str, Any]:
        """As that of `Documents`."""
        return {"n_cut": self.n_cut}

    def restore(self, state: Mapping[str, Any]) -> None:
        """As that of `Documents`."""
        self.n_cut = state["n_cut"]

    def add(self, number: int, pieces: Pieces) -> Iterator[Packed]:
        """The context of document `number`; none if it has no token that counts."""
        ids = list(self.bos)
        for piece in pieces:
            ids += piece
            if len(ids) > self.context:  # a document may be far longer
                break
        self.n_cut += len(ids) > self.context
        n_tokens = min(len(ids), self.context)
        tokens = np.full(self.context, self.eos)
        tokens[:n_tokens] = ids[:n_tokens]
        position = np.arange(self.context)
        if n_tokens > 1:
            yield Packed(
                tokens, np.full_like(tokens, number), (position > 0) & (position < n_tokens)
            )


PACKERS = {"documents": Documents, "one-per-context": OnePerContext}


def pack(
    documents: Iterable[tuple[int, list[int]]], context: int, bos: int | None, eos: int | None
) -> Iterator[Packed]:
    """All full contexts of a stream of (document number, token ids); the unfilled rest at the end
    is dropped."""
    packer = Documents(context, bos, eos)
    for number, ids in documents:
        yield from packer.add(number, [ids])
