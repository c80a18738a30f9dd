"""The activation cache on disk: a manifest, checksummed safetensors shards, second moments.

Shapes: C contexts, T positions, D width.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor

from saelab.activations.batches import Batches
from saelab.activations.plan import Plan
from saelab.activations.source import SPLITS, Piece, Progress, Source
from saelab.errors import FailedRun, UsageError
from saelab.origin import Identity

SCHEMA = "saelab/cache/1"
CHUNK = 64  # contexts read at a time
_verified: set[tuple[str, int, int]] = set()


class Contexts(NamedTuple):
    """Whole contexts in order. tokens, documents: [C, T] int64; acts: [C, T, D] float32, position 0
    included."""

    tokens: Tensor
    acts: Tensor
    documents: Tensor


class Moments(NamedTuple):
    """n: number of tokens (position 0 excluded); sum: [D] sum of x; second: [D, D] sum of x x^T,
    all float64."""

    n: float
    sum: Tensor
    second: Tensor


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class Cache:
    """A finished cache, opened for reading.

    Raises UsageError if the folder holds no cache or an unfinished one, FailedRun naming a shard
    that is missing or cut short.
    """

    def __init__(self, directory: Path | str) -> None:
        self.path = Path(directory)
        if not (self.path / "manifest.json").is_file():
            raise UsageError(
                f"{self.path} is no activation cache: it has no manifest.json; make one with `saelab capture`"
            )
        self.manifest: dict[str, Any] = json.loads((self.path / "manifest.json").read_text())
        if self.manifest.get("schema") != SCHEMA:
            raise UsageError(
                f"{self.path} has schema {self.manifest.get('schema')!r}, this version reads {SCHEMA!r}"
            )
        if not self.manifest["complete"]:
            raise UsageError(
                f"{self.path} is unfinished: repeat its `saelab capture` command to resume it"
            )
        for entry in [
            *self.manifest["shards"],
            self.manifest["moments"],
            self.manifest["documents"],
        ]:
            file = self.path / entry["file"]
            size = file.stat().st_size if file.is_file() else None
            if size != entry["bytes"]:
                found = (
                    "is missing"
                    if size is None
                    else f"was cut or changed: {size} bytes instead of {entry['bytes']}"
                )
                raise FailedRun(
                    f"{entry['file']} of {self.path} {found}; delete the cache and capture again"
                )
        self.plan = Plan.read(self.manifest)

    @classmethod
    def write(cls, out: Path | str, source: Source, progress: Progress | None = None) -> "Cache":
        """Write (or resume, or find finished) the cache of a source; see `writer.write`.

        cache = Cache.write("cache", from_text(model, "stdlib", ["blocks.1.hook_resid_post"], 10**6))
        """
        from saelab.activations import writer

        return cls(writer.write(source, out, progress))

    @property
    def hooks(self) -> list[str]:
        """Canonical names of the cached hook points."""
        return list(self.plan.hooks)

    @property
    def context(self) -> int:
        """T, position 0 included."""
        return self.plan.context

    def n_tokens(self, split: str = "train") -> int:
        """Tokens of a split, position 0 of each context excluded."""
        return sum(s["contexts"] for s in self.shards(split)) * (self.context - 1)

    def shards(self, split: str) -> list[dict]:
        """The manifest's entries of a split's shards, in order."""
        if split not in SPLITS:
            raise ValueError(f"no split {split!r}; there are {' and '.join(SPLITS)}")
        return [shard for shard in self.manifest["shards"] if shard["split"] == split]

    def resolve(self, hook: str) -> str:
        """The canonical name of a cached hook. Raises UsageError for one the cache does not
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
        return json.loads((self.path / self.manifest["documents"]["file"]).read_text())

    def moments(self, hook: str, split: str = "train") -> Moments:
        """Second moments of a hook over a split's tokens."""
        tensors = load_file(self.path / self.manifest["moments"]["file"])
        prefix = f"{split}/{self.resolve(hook)}"
        n, total, second = (tensors[f"{prefix}/{part}"] for part in ("n", "sum", "second"))
        return Moments(float(n), total, second)

    def verify(self) -> None:
        """Compare every file's SHA-256 with the manifest, once per process and file. Raises
        FailedRun naming an altered file."""
        for entry in [
            *self.manifest["shards"],
            self.manifest["moments"],
            self.manifest["documents"],
        ]:
            file = self.path / entry["file"]
            status = file.stat()
            key = (str(file.resolve()), status.st_size, status.st_mtime_ns)
            if key not in _verified:
                if sha256(file) != entry["sha256"]:
                    raise FailedRun(
                        f"{entry['file']} of {self.path} was altered: its SHA-256 is not the manifest's; capture again"
                    )
                _verified.add(key)

    def check_model(self, identity: Identity) -> None:
        """Raise UsageError if the cache was made by another model (other weights) than
        `identity`."""
        mine = self.manifest["model"]
        if mine["revision"] != identity.revision:
            raise UsageError(
                f"{self.path} was made by {mine['name']} (revision {mine['revision'][:12]}), not by {identity.name} "
                f"(revision {str(identity.revision)[:12]}): use a cache of that model"
            )

    def contexts(
        self, hook: str, split: str = "train", *, gradients: bool = False
    ) -> Iterator[Contexts]:
        """Whole contexts in order, in chunks; acts are the hook's activations, or the cached
        gradients at it."""
        name = self.resolve(hook) + (".grad" if gradients else "")
        for shard in self.shards(split):
            with safe_open(self.path / shard["file"], "pt") as file:
                for first in range(0, shard["contexts"], CHUNK):
                    part = slice(first, min(first + CHUNK, shard["contexts"]))
                    tokens, documents = (
                        file.get_slice(key)[part].long() for key in ("tokens", "documents")
                    )
                    yield Contexts(tokens, file.get_slice(name)[part].float(), documents)

    def pieces(self) -> Iterator[Piece]:
        """Its contexts in the order of the shards, both splits, as a Source gives them."""
        first = 0
        for shard in self.manifest["shards"]:
            with safe_open(self.path / shard["file"], "pt") as file:
                tokens, owners = (file.get_tensor(key).long() for key in ("tokens", "documents"))
            numbers = torch.arange(first, first + len(tokens))
            yield Piece(shard["split"], tokens, owners, numbers)
            first += len(tokens)

    def take(self, hook: str, numbers_C: Tensor) -> Tensor:
        """Activations [C, T, D] as they are stored of contexts by their number in `pieces`."""
        name, rows, first = self.resolve(hook), [], 0
        for shard in self.manifest["shards"]:
            here = numbers_C[(numbers_C >= first) & (numbers_C < first + shard["contexts"])]
            if len(here):
                with safe_open(self.path / shard["file"], "pt") as file:
                    rows.append(file.get_tensor(name)[here - first])
            first += shard["contexts"]
        return torch.cat(rows)

    def batches(
        self, hook: str | list[str], size: int, seed: int = 0, split: str = "train", start: int = 0
    ) -> Any:
        """Endless batches of `size` shuffled tokens [size, D] float32 from batch number `start` on;
        see Batches.

        hook: a name, or a list of names, which yields a dict by name of the same tokens'
        activations; NAME.grad is the gradient. Raises UsageError if the split has fewer than `size`
        tokens.
        """
        names = [hook] if isinstance(hook, str) else hook
        keys = [
            self.resolve(n.removesuffix(".grad")) + (".grad" if n.endswith(".grad") else "")
            for n in names
        ]
        if self.n_tokens(split) < size:
            raise UsageError(
                f"a batch of {size} tokens is more than the {self.n_tokens(split)} {split} tokens of {self.path}"
            )
        files = [(self.path / s["file"], s["contexts"]) for s in self.shards(split)]
        return Batches(
            files,
            dict(zip(names, keys, strict=True)),
            self.context,
            size,
            seed,
            start,
            isinstance(hook, str),
        )
