"""The activation cache on disk: a manifest, checksummed safetensors shards, second moments.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from saelab import digests, joint
from saelab.activations import manifest, registry, writer
from saelab.activations.batches import Batches
from saelab.activations.moments import Moments, of_pieces
from saelab.activations.plan import Plan
from saelab.activations.records import Contexts, Tokens, first_counted
from saelab.activations.shuffled import File, Shuffled, counts
from saelab.activations.source import SPLITS, Piece, Progress, Source, all_but_first
from saelab.activations.stored import Stored
from saelab.activations.taking import taken
from saelab.errors import UsageError
from saelab.files import read_json
from saelab.origin import Identity

CHUNK = 64  # contexts read at a time
JOINT_TOKENS = 100_000  # whose moments are those of several hooks together


class Cache:
    """A finished cache, opened for reading. A hook may be several, `a+b`: their activations lie
    side by side (see `saelab.joint`).

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
        if len(parts := joint.parts(hook)) > 1:
            return joint.joined(map(self.resolve, parts))
        for name, entry in self.plan.hooks.items():
            if hook == name or hook in entry["aliases"]:
                return name
        raise UsageError(f"{self.path} holds no hook {hook!r}; it holds {', '.join(self.hooks)}")

    def width(self, hook: str) -> int:
        """D at a hook."""
        return sum(self.widths(hook))

    def widths(self, hook: str) -> list[int]:
        """D at each of the hooks that a name stands for."""
        return [self.plan.hooks[name]["width"] for name in joint.parts(self.resolve(hook))]

    def whole(self, hook: str) -> str | None:
        """The model's hook of whose activation a derived one, such as an SAE's error, is a part;
        None for a hook of the model. Raises UsageError for a derived one among several."""
        parts = joint.parts(self.resolve(hook))
        wholes = [self.plan.hooks[name].get("part_of") for name in parts]
        if any(wholes) and len(wholes) > 1:
            raise UsageError(f"{hook}: a part of an activation cannot be one of several hooks")
        return wholes[0]

    def document_names(self) -> list[str]:
        """The name of each document, by the number that `Contexts.documents` holds."""
        return read_json(self._checked(self.manifest["documents"]))

    def moments(self, hook: str, split: str = "train") -> Moments:
        """Second moments of a hook over a split's tokens; of several hooks together, of which the
        cache has none, over at most JOINT_TOKENS of them."""
        if len(joint.parts(hook)) > 1:
            return of_pieces(chunk.x for chunk in self.counted(hook, split, JOINT_TOKENS))
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
        keys = [name + ".grad" * gradients for name in joint.parts(self.resolve(hook))]
        for shard in self.shards(split):
            with self._open(shard) as file:
                for first in range(0, shard["contexts"], CHUNK):
                    part = slice(first, min(first + CHUNK, shard["contexts"]))
                    tokens, documents = (
                        file.get_slice(key)[part].long() for key in ("tokens", "documents")
                    )
                    acts = joint.beside([Stored.read(file, key, part).float() for key in keys])
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
        if not self.n_tokens(split):
            raise UsageError(f"{self.path} has no {split} tokens: capture more")
        yield from first_counted(self.contexts(hook, split), n_tokens)

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
        names, shards = joint.parts(self.resolve(hook)), self.manifest["shards"]
        opens = [partial(self._open, shard) for shard in shards]
        return taken(opens, [shard["contexts"] for shard in shards], names, numbers_C, CHUNK)

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
            for name in names
            for n in joint.parts(name)
        }
        if self.n_tokens(split) < size:
            raise UsageError(
                f"a batch of {size} tokens is more than the {self.n_tokens(split)} {split} tokens "
                f"of {self.path}"
            )
        files = [self._file(shard) for shard in self.shards(split)]
        filler = Shuffled(files, keys, self.context, size, seed, device)
        return Batches(filler, names, size, start, isinstance(hook, str), ahead)
