"""The activation cache on disk: a manifest, checksummed safetensors shards, second moments.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from saelab import digests
from saelab.activations import manifest, registry, writer
from saelab.activations.batches import Batches
from saelab.activations.moments import Moments
from saelab.activations.plan import Plan
from saelab.activations.records import Contexts, Tokens
from saelab.activations.shuffled import File, Shuffled, counts
from saelab.activations.source import SPLITS, Piece, Progress, Source, all_but_first
from saelab.activations.stored import Stored
from saelab.errors import UsageError
from saelab.files import read_json
from saelab.origin import Identity

CHUNK = 64  # contexts read at a time


class Cache:
    """A finished cache, opened for reading.

    Raises UsageError if the folder holds no cache or an unfinished one, FailedRun naming a shard
    that is missing or cut short.

    >>> x_BD = next(Cache("caches/a").batches("blocks.2.hook_out", size=1024))
    >>> sizes = [len(chunk.tokens) for chunk in Cache("caches/a").contexts("blocks.2.hook_out")]
    """

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory)
        self.manifest: dict[str, Any] = manifest.read(self.path)
        self.plan = Plan.read(self.manifest)

    def __repr__(self) -> str:
        hooks = ", ".join(f"{name} [{self.width(name)}]" for name in self.hooks)
        n_train, n_held_out = (self.n_tokens(split) for split in SPLITS)
        tokens = f"{n_train:,} training and {n_held_out:,} held-out tokens"
        return f"Cache({str(self.path)!r}: {tokens} at {hooks} of {self.identity.name})"

    @classmethod
    def write(
        cls,
        out: Path | str,
        source: Source | str,
        progress: Progress | None = None,
        **options: Any,
    ) -> "Cache":
        """Write (or resume, or find finished) the cache of a source, or of the one of that name
        with these options; see `writer.write`.

        >>> Cache.write("cache", "arrays", arrays=x_ND)
        >>> Cache.write("cache", from_text(model, "stdlib", ["blocks.1.hook_out"], 10**6))
        """
        asked = registry.make(source, **options) if isinstance(source, str) else source
        return cls(writer.write(asked, out, progress))

    @property
    def hooks(self) -> list[str]:
        """The cached hook points, by the names they were captured by (of older caches: canonical
        ones)."""
        return list(self.plan.hooks)

    @property
    def context(self) -> int:
        """T, position 0 included."""
        return self.plan.context

    def n_tokens(self, split: str = "train") -> int:
        """Tokens of a split that count."""
        self.shards(split)  # which names an unknown split
        return manifest.n_tokens(self.manifest, split)

    def shards(self, split: str) -> list[dict]:
        """The manifest's entries of a split's shards, in order."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {' and '.join(SPLITS)}")
        return [shard for shard in self.manifest["shards"] if shard["split"] == split]

    def resolve(self, hook: str) -> str:
        """The name that a cached hook goes by here. Raises UsageError for one the cache does not
        hold."""
        for name, entry in self.plan.hooks.items():
            if hook == name or hook in entry["aliases"]:
                return name
        raise UsageError(f"{self.path} holds no hook {hook!r}; it holds {', '.join(self.hooks)}")

    def width(self, hook: str) -> int:
        """D at a hook."""
        return self.plan.hooks[self.resolve(hook)]["width"]

    def whole(self, hook: str) -> str | None:
        """The model's hook of whose activation a derived one, such as an SAE's error, is a part;
        None for a hook of the model."""
        return self.plan.hooks[self.resolve(hook)].get("part_of")

    def document_names(self) -> list[str]:
        """The name of each document, by the number that `Contexts.documents` holds."""
        return read_json(self._checked(self.manifest["documents"]))

    def moments(self, hook: str, split: str = "train") -> Moments:
        """Second moments of a hook over a split's tokens."""
        tensors = load_file(self._checked(self.manifest["moments"]))
        prefix = f"{split}/{self.resolve(hook)}"
        n, total, second = (tensors[f"{prefix}/{part}"] for part in ("n", "sum", "second"))
        return Moments(float(n), total, second)

    def verify(self) -> None:
        """Compare every file's SHA-256 with the manifest now, which reading does on first use.
        Raises FailedRun naming an altered file."""
        for entry in manifest.entries(self.manifest):
            self._checked(entry)

    def _checked(self, entry: dict) -> Path:
        """The path of a file, its SHA-256 compared once per process."""
        return digests.check(self.path, entry, manifest.REMEDY)

    def _open(self, shard: dict) -> Any:
        return safe_open(self._checked(shard), "pt")

    @property
    def identity(self) -> Identity:
        """The model that made it."""
        return Identity.from_dict(self.manifest["model"])

    def contexts(
        self, hook: str, split: str = "train", *, gradients: bool = False
    ) -> Iterator[Contexts]:
        """Whole contexts in order, in chunks; acts are the hook's activations, or the cached
        gradients at it."""
        name = self.resolve(hook) + (".grad" if gradients else "")
        for shard in self.shards(split):
            with self._open(shard) as file:
                for first in range(0, shard["contexts"], CHUNK):
                    part = slice(first, min(first + CHUNK, shard["contexts"]))
                    tokens, documents = (
                        file.get_slice(key)[part].long() for key in ("tokens", "documents")
                    )
                    acts = Stored.read(file, name, part).float()
                    yield Contexts(tokens, acts, documents, self._mask(file, tokens, part))

    def _mask(self, file: Any, tokens_CT: Tensor, rows: slice) -> Tensor:
        """[C, T] bool: which positions of those contexts of an open shard count."""
        if not self.plan.masked:
            return all_but_first(tokens_CT)
        return file.get_slice("counted")[rows]

    def counted(
        self, hook: str, split: str = "train", n_tokens: int | None = None
    ) -> Iterator[Tokens]:
        """The first n_tokens tokens of a split that count (None: all), in order, in chunks.

        x_ND = torch.cat([chunk.x for chunk in cache.counted(hook, "held_out", 10_000)])

        Raises UsageError where the split has none.
        """
        n_read = 0
        for chunk in self.contexts(hook, split):
            columns = (chunk.acts, chunk.documents, chunk.tokens)
            left = None if n_tokens is None else n_tokens - n_read
            tokens = Tokens(*(column[chunk.counted][:left] for column in columns))
            n_read += len(tokens.x)
            yield tokens
            if n_tokens is not None and n_read >= n_tokens:
                return
        if not n_read:
            raise UsageError(f"{self.path} has no {split} tokens: capture more")

    def pieces(self) -> Iterator[Piece]:
        """Its contexts in the order of the shards, both splits, as a Source gives them."""
        first = 0
        for shard in self.manifest["shards"]:
            with self._open(shard) as file:
                tokens, owners = (file.get_tensor(key).long() for key in ("tokens", "documents"))
                counted = self._mask(file, tokens, slice(None))
            numbers = torch.arange(first, first + len(tokens))
            yield Piece(shard["split"], tokens, owners, numbers, counted)
            first += len(tokens)

    def take(self, hook: str, numbers_C: Tensor) -> Iterator[Tensor]:
        """Activations [C, T, D] float32, in chunks, of contexts by their number in `pieces`,
        ascending."""
        name, shards = self.resolve(hook), self.manifest["shards"]
        shard_C = torch.from_numpy(np.searchsorted(self._ends, numbers_C.numpy(), side="right"))
        for number in shard_C.unique().tolist():
            first = int(self._ends[number]) - shards[number]["contexts"]
            with self._open(shards[number]) as file:
                stored = Stored.read(file, name)
                for rows in (numbers_C[shard_C == number] - first).split(CHUNK):
                    yield stored[rows].float()

    @cached_property
    def _ends(self) -> np.ndarray:
        """How many contexts end with each shard, in order."""
        return np.cumsum([shard["contexts"] for shard in self.manifest["shards"]])

    def _file(self, shard: dict) -> File:
        """A shard as batches read it."""
        open_, masked = partial(self._open, shard), self.plan.masked
        if not masked:
            return File(open_, np.full(shard["contexts"], self.context - 1), masked)
        # Its digest is not compared yet, which would read every shard before the first batch.
        n_counted_C = counts(self.path / shard["file"])
        if n_counted_C.sum() != shard["counted"]:
            self._checked(shard)
        return File(open_, n_counted_C, masked)

    def batches(
        self,
        hook: str | list[str],
        size: int,
        seed: int = 0,
        split: str = "train",
        start: int = 0,
        device: torch.device | str = "cpu",
        ahead: bool | None = None,
    ) -> Any:
        """Endless batches of `size` shuffled tokens [size, D] float32 from batch number `start` on;
        see Shuffled for their order, Batches for the thread.

        hook: a name, or a list of names, which yields a dict by name of the same tokens'
        activations; NAME.grad is the gradient. Raises UsageError if the split has fewer than `size`
        tokens.
        """
        names = [hook] if isinstance(hook, str) else hook
        keys = {
            n: self.resolve(n.removesuffix(".grad")) + (".grad" if n.endswith(".grad") else "")
            for n in names
        }
        if self.n_tokens(split) < size:
            raise UsageError(
                f"a batch of {size} tokens is more than the {self.n_tokens(split)} {split} tokens "
                f"of {self.path}"
            )
        files = [self._file(shard) for shard in self.shards(split)]
        filler = Shuffled(files, keys, self.context, size, seed, device)
        return Batches(filler, names, size, start, isinstance(hook, str), ahead)
