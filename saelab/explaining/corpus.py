"""What explanations are found in and held to: contexts in three parts, and where every feature
fires in them.

Shapes: C contexts of T positions, F features, U units (a feature; of a signed SAE a feature's one
sign), N firings.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from numpy.typing import NDArray

from saelab.activations import Cache
from saelab.errors import FailedRun, UsageError
from saelab.sae import SAE

FIND, CHOOSE, HELD_OUT = range(3)  # rules are found in the first, chosen in the second
TOGETHER = 8  # neighbouring contexts that fall into one part, as they often share a document
MOST = 100_000_000  # firings that are held, of 8 bytes each; reading stops there


class Corpus(NamedTuple):
    """Whole contexts; place n is position n % T of context n // T."""

    tokens: NDArray
    """[C, T] int32"""
    documents: NDArray
    """[C, T] int32; those of the two splits are told apart"""
    counted: NDArray
    """[C, T] which positions count"""
    part: NDArray
    """[C] FIND, CHOOSE or HELD_OUT"""

    def places(self, *parts: int) -> NDArray:
        """[C * T] bool: the places of some parts that count."""
        return (self.counted & np.isin(self.part, parts)[:, None]).reshape(-1)


class Firings(NamedTuple):
    """Where units fire, at places that count; [N] each."""

    unit: NDArray
    """int32"""
    place: NDArray
    """int32"""
    value: NDArray
    """float16: |activation|"""
    n_units: int

    def inside(self, places_M: NDArray) -> "Firings":
        """Those at some places."""
        kept_N = places_M[self.place]
        return self._replace(
            unit=self.unit[kept_N], place=self.place[kept_N], value=self.value[kept_N]
        )

    def counts(self) -> NDArray:
        """[U] how often each fires."""
        return np.bincount(self.unit, minlength=self.n_units)

    def matrix(self, n_places: int) -> Any:
        """[U, C * T] sparse: 1 where a unit fires."""
        ones_N = np.ones(len(self.unit), np.int32)
        shape = (self.n_units, n_places)
        return scipy.sparse.csr_array((ones_N, (self.unit, self.place)), shape=shape)


def n_units(sae: SAE) -> int:
    """U: a signed SAE's features have two signs each, unit 2 f + 1 being the negative one of f."""
    return sae.n_features * (2 if sae.sparsify.signed else 1)


def read(
    sae: SAE,
    cache: Cache,
    hook: str,
    n_tokens: int,
    n_held_out: int,
    progress: Callable[[int], object] | None = None,
) -> tuple[Corpus, Firings]:
    """Code the first n_tokens training and n_held_out held-out tokens of a cache, whole contexts.

    progress: called with the number of tokens read so far. Raises UsageError where a split is
    empty or of another width, FailedRun for activations that are not finite.
    """
    reader = _Reader(sae, progress or (lambda n: None))
    for split, wanted in (("train", n_tokens), ("held_out", n_held_out)):
        reader.read(cache.contexts(hook, split), split, wanted)
    return reader.result()


class _Reader:
    """Contexts and firings of the chunks so far."""

    def __init__(self, sae: SAE, progress: Callable[[int], object]) -> None:
        self.sae, self.progress = sae, progress
        self.contexts: list[Corpus] = []
        self.firings: list[Firings] = []
        self.n_contexts = self.n_tokens = self.n_firings = 0

    def read(self, chunks: Iterator, split: str, wanted: int) -> None:
        """Read chunks of a split until so many tokens are there."""
        first, before = self.n_contexts, self.n_tokens
        for chunk in chunks:
            left = wanted - (self.n_tokens - before)
            if left <= 0 or (self.n_firings > MOST and split == "train"):
                break
            counts_C = chunk.counted.sum(1).numpy().cumsum()
            chunk = chunk.part(slice(int(np.searchsorted(counts_C, left)) + 1))
            self._add(chunk, split)
        if self.n_contexts == first:
            raise UsageError(f"the cache has no {split} contexts to explain features by")

    @torch.no_grad()
    def _add(self, chunk: Any, split: str) -> None:
        if chunk.acts.shape[-1] != self.sae.d_model:
            width = chunk.acts.shape[-1]
            raise UsageError(f"activations here have width {width}, not {self.sae.d_model}")
        try:
            code = self.sae.encode(chunk.acts.to(self.sae.W_enc)).to("cpu")
        except FloatingPointError as error:
            raise FailedRun(f"context {self.n_contexts} and on: {error}") from None
        n, length = chunk.tokens.shape
        counted_M = chunk.counted.reshape(-1).numpy()
        place_N, value_N = code.tokens.numpy(), code.values.float().numpy()
        kept = np.flatnonzero(counted_M[place_N] & (value_N != 0))
        unit_N, value_N = code.features.numpy()[kept], value_N[kept]
        if self.sae.sparsify.signed:
            unit_N = 2 * unit_N + (value_N < 0)
        place_N = place_N[kept] + self.n_contexts * length
        size_N = np.abs(value_N).clip(max=65000).astype(np.float16)
        firings = (unit_N.astype(np.int32), place_N.astype(np.int32), size_N)
        self.firings.append(Firings(*firings, n_units(self.sae)))
        number_C = np.arange(self.n_contexts, self.n_contexts + n)
        part_C = number_C // TOGETHER % 2 if split == "train" else np.full(n, HELD_OUT)
        documents_CT = chunk.documents.numpy().astype(np.int32)
        columns = (chunk.tokens.numpy().astype(np.int32), documents_CT, chunk.counted.numpy())
        self.contexts.append(Corpus(*columns, part_C.astype(np.int8)))
        self.n_contexts += n
        self.n_tokens += int(counted_M.sum())
        self.n_firings += len(kept)
        self.progress(self.n_tokens)

    def result(self) -> tuple[Corpus, Firings]:
        """All of them, one after the other."""
        corpus = Corpus(*(np.concatenate(column) for column in zip(*self.contexts, strict=True)))
        unit_N, place_N, value_N = (
            np.concatenate([getattr(part, name) for part in self.firings])
            for name in ("unit", "place", "value")
        )
        return corpus, Firings(unit_N, place_N, value_N, n_units(self.sae))
