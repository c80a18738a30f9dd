"""Packing: documents become contexts of equal length, each starting with BOS, documents separated by end-of-text."""

from collections.abc import Iterable, Iterator

import numpy as np


def pack(documents: Iterable[tuple[int, list[int]]], context: int, bos: int, eos: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut a stream of (document number, token ids) into contexts.

    Every document is followed by `eos`; each context is `bos` and the next context - 1 tokens of the stream. The unfilled rest
    at the end is dropped. Yields (tokens [context] int64, document of each position [context] int64); position 0 carries
    the document of position 1.
    """
    tokens: list[int] = []
    owners: list[int] = []
    size = context - 1
    for number, ids in documents:
        tokens += [*ids, eos]
        owners += [number] * (len(ids) + 1)
        start = 0
        while len(tokens) - start >= size:
            piece = np.array([bos, *tokens[start : start + size]], dtype=np.int64)
            owner = np.array(owners[start : start + 1] + owners[start : start + size], dtype=np.int64)
            yield piece, owner
            start += size
        tokens, owners = tokens[start:], owners[start:]
