"""What a cache will hold, as one value that decides every byte of it; the manifest keeps it.

Shapes: C contexts, T positions, D width.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

import torch

from saelab.documents import RULE
from saelab.errors import UsageError
from saelab.ranges import Count, OrNone, strict

SHARD_BYTES = 64_000_000
HEADER_BYTES = 512  # more than an array takes in a shard's header
SHARD_STEP = 16  # shards hold whole groups of so many contexts, as forward passes and batches do
# By whether a mask says which positions count: who does not know of it must not read them all.
SCHEMAS = {False: "saelab/cache/3", True: "saelab/cache/4"}
OLD_SCHEMAS = ("saelab/cache/1", "saelab/cache/2")  # whose manifest lists the shards itself
# The moments are written once for so many times their size of shards: they add at most that part to
# what is written, and a killed capture reads at most that much again.
MOMENTS_SHARE = 16
DTYPES = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
    "int8": torch.int8,
}
SCALE = ".scale"  # an array of int8 NAME has a float32 array of that ending, a number per token
PACKINGS = {
    "documents": "documents joined by the end-of-text token, cut into contexts that start with BOS;"
    " splits packed apart",
    "one-per-context": "one document per context: BOS, its tokens, padding that does not count;"
    " longer ones cut; splits apart",
    "given": "contexts as the source gives them",
}


def stored_bytes(width: int, dtype: str) -> int:
    """Bytes on disk of one position's activation."""
    scale = torch.float32.itemsize if dtype == "int8" else 0
    return width * DTYPES[dtype].itemsize + scale


def hook(
    shape: Sequence[int], aliases: Sequence[str] = (), part_of: str | None = None
) -> dict[str, Any]:
    """A hook point's entry in a plan: shape of one position's activation, its product as `width`,
    other names, and the hook of whose activation this one is a part (None: of none)."""
    entry = {"shape": list(shape), "width": math.prod(shape), "aliases": list(aliases)}
    return entry if part_of is None else {**entry, "part_of": part_of}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Everything that decides the bytes of a cache; a folder that holds another plan's cache is not
    resumed. Raises UsageError for a dtype or packing that no cache has, and for a model without a
    name."""

    model: dict[str, Any]
    """identity of what computed the activations: `name`, and what is known of it (`revision`,
    `tokenizer_hash`); `unread`: weights in its files that it has no place for"""
    text: str
    """what was read: the name of a text, or of another source"""
    hooks: dict[str, dict]
    """entry of each hook by the name it was asked for by, see `hook`"""
    n_tokens: Count
    """positions asked for"""
    context: Count
    """T, every position included"""
    n_held_out: OrNone = 0
    """of these, positions held out (0: as the documents fall, about one in 20)"""
    n_bytes: OrNone = 0
    """of all shards together, which decided n_tokens (0: they were asked for)"""
    text_field: str = ""
    """field of the text's records"""
    gradients: bool = False
    """whether each hook NAME has an array NAME.grad too"""
    dtype: str = "float16"
    """of activations and gradients on disk"""
    shard_contexts: OrNone = 0
    """contexts per shard (0: what fits SHARD_BYTES)"""
    bos: int | None = 0
    """token that starts every context; None: text does"""
    eos: int | None = 0
    """token between documents, and in padding; None: nothing stands between"""
    bos_rule: str = "none"
    """where `bos` comes from, in words"""
    parse_special: bool = False
    """whether tokens that were added to the vocabulary were found where the text spells them"""
    uncounted: str = ""
    """`special`: tokens that stand for no text do not count, wherever they are"""
    split_rule: str = RULE
    """which documents are held out, in words"""
    seed: int = 0
    """of everything random in the source"""
    pack: str = "given"
    """row of PACKINGS"""
    masked: bool = False
    """whether an array [C, T] says which positions count; if not, every one but the first does"""
    model_dtype: str = "float32"
    """what the model computed in"""
    made_with: str = ""
    """what else decides the bytes, such as the digest of an SAE whose error this is"""

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise UsageError(f"no dtype {self.dtype!r}; there are {', '.join(DTYPES)}")
        if self.pack not in PACKINGS:
            raise UsageError(f"no packing {self.pack!r}; there are {', '.join(PACKINGS)}")
        taken = [name + SCALE for name in self.arrays if name + SCALE in self.arrays]
        if taken and self.dtype == "int8":
            raise UsageError(
                f"int8 keeps its scales in {taken[0]}, which is a hook here: rename it"
            )
        if not self.model.get("name"):
            raise UsageError(
                f"model={self.model} says no name: {{'name': 'mine'}} is enough for one of your own"
            )
        if not self.shard_contexts:
            object.__setattr__(self, "shard_contexts", self._fitting(SHARD_BYTES))

    def _fitting(self, n_bytes: int) -> int:
        """How many contexts a shard of so many bytes of activations holds."""
        fitting = n_bytes // (self.bytes_per_position * self.context)
        return max(SHARD_STEP, fitting // SHARD_STEP * SHARD_STEP)

    def in_shards_of(self, n_bytes: int) -> "Plan":
        """The same in shards of at most so many bytes of activations, where these hold SHARD_STEP
        contexts."""
        return replace(self, shard_contexts=self._fitting(n_bytes))

    def within(self, n_bytes: int) -> "Plan":
        """The same of as many whole contexts as shards of so many bytes in all hold, at most as
        many as it has. Raises UsageError where that leaves one of the splits nothing."""
        a_context = self.context * self.position_bytes
        header = HEADER_BYTES * (len(self.arrays) + 4)
        # Every full shard has a header, and the last one of each split.
        room = max(0, n_bytes - 2 * header) * self.shard_contexts
        n_contexts = room // (a_context * self.shard_contexts + header)
        n_tokens = min(self.n_tokens, n_contexts * self.context)
        if n_tokens < max(2 * self.context, self.n_held_out + self.context):
            least = max(2, -(-self.n_held_out // self.context) + 1)
            raise UsageError(
                f"bytes={n_bytes:,} hold {n_contexts} contexts of {a_context:,} bytes, "
                f"{least} are the least: give more bytes, fewer hooks or a smaller --context"
            )
        return replace(self, n_tokens=n_tokens, n_bytes=n_bytes)

    @classmethod
    def read(cls, manifest: Mapping[str, Any]) -> "Plan":
        """The plan of the cache with this manifest, of any version."""
        # Caches of before there was a choice hold joined documents, in which text that spells an
        # added token was that token.
        settings = {"pack": "documents", **manifest["settings"]}
        rule = manifest.get("split_rule", RULE)
        known = {"parse_special": settings["pack"] != "given", "split_rule": rule}
        return strict(cls(**{**known, **settings, "hooks": manifest["hooks"]}))

    def settings(self) -> dict[str, Any]:
        """The plan as the manifest's `settings` hold it: plain JSON, hooks by name alone."""
        return json.loads(json.dumps({**asdict(self), "hooks": list(self.hooks)}))

    def differing(self, held: "Plan") -> str:
        """`field: asked / held` for each field in which a cache's plan differs from this one; of
        the models only what is known of both."""
        asked, other = self.settings(), held.settings()
        known = self.model.keys() & held.model.keys() - {"name"}
        if all(self.model[key] == held.model[key] for key in known):
            other["model"] = asked["model"]
        return ", ".join(
            f"{field.name}: {asked[field.name]!r} / {other[field.name]!r}"
            for field in fields(self)
            if asked[field.name] != other[field.name]
        )

    @property
    def asked_bos(self) -> int | str:
        """What starts a context, as `models.tokens.bounds` is asked for it."""
        return "none" if self.bos is None else self.bos

    @property
    def habits(self) -> dict[str, Any]:
        """How its contexts are made, as `Origin.more` keeps it of what was trained on them, in
        SAELens's words; nothing of contexts that somebody gave."""
        if self.pack == "given":
            return {}
        masked = {"exclude_special_tokens": True} if self.uncounted else {}
        whole = {"context_size": self.context, "prepend_bos": self.bos is not None, **masked}
        return {**whole, "dataset_path": self.text}

    @property
    def arrays(self) -> dict[str, int]:
        """Width by name of every array of activations or gradients."""
        widths = {name: entry["width"] for name, entry in self.hooks.items()}
        gradients = {f"{name}.grad": width for name, width in widths.items()}
        return widths | (gradients if self.gradients else {})

    @property
    def bytes_per_position(self) -> int:
        """Bytes on disk of one position's activations and gradients, scales included."""
        return sum(stored_bytes(width, self.dtype) for width in self.arrays.values())

    @property
    def position_bytes(self) -> int:
        """Bytes on disk of one position: activations and gradients, its token, the number of its
        document, and whether it counts."""
        return self.bytes_per_position + 8 + self.masked

    @property
    def shard_bytes(self) -> int:
        """Size of a full shard, but for its header."""
        return self.shard_contexts * self.context * self.position_bytes

    @property
    def moments_bytes(self) -> int:
        """Size of the second moments of both splits."""
        return sum((w**2 + w + 1) * 8 for w in (h["width"] for h in self.hooks.values())) * 2

    @property
    def moments_every(self) -> int:
        """After how many shards the moments are written."""
        return -(-MOMENTS_SHARE * self.moments_bytes // self.shard_bytes)

    @property
    def needed_bytes(self) -> int:
        """Size of the finished cache: activations, gradients, tokens, document numbers, moments."""
        n_positions = -(-self.n_tokens // self.context) * self.context
        return n_positions * self.position_bytes + self.moments_bytes
