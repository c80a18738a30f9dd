"""A Source: a synthetic world, which fills an activation cache that `saelab train` reads like any
other.

A token id is the number of its sample: the world stands in for the model that maps ids to
activations, so that the ids of a cache are all it takes to know what is true of its tokens. Shapes:
C contexts, T positions, D width, G true features.
"""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.activations.plan import Plan, hook
from saelab.activations.source import Piece, Progress, all_but_first
from saelab.documents import held_out
from saelab.errors import UsageError
from saelab.evaluation.synthetic import Spec, World
from saelab.origin import SYNTHETIC

HOOK = "synthetic"
CHUNK = 16  # contexts drawn at a time


def draw(world: World, tokens_CT: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """The samples that the ids of whole contexts name: x [C, T, D] and truth [C, T, G]."""
    length = tokens_CT.shape[1]
    drawn = [
        world.sample(length, (seed << 32) + number)
        for number in (tokens_CT[:, 0] // length).tolist()
    ]
    x, truth = zip(*drawn, strict=True)
    return torch.stack(x), torch.stack(truth)


def write(
    spec: Spec,
    out: Path | str,
    n_tokens: int,
    *,
    context: int = 256,
    dtype: str = "float16",
    seed: int = 0,
    progress: Progress | None = None,
) -> Path:
    """Write (or resume, or find finished) a cache of n_tokens samples of the spec's world at the
    hook `synthetic`; its folder.

    Each context is a document of its own, held out by the project's one rule. Raises UsageError for
    an impossible spec, an unknown dtype, or too few tokens for a held-out context.
    """
    return Cache.write(out, Samples(spec, n_tokens, context, dtype, seed), progress).path


class Samples:
    """The samples of a world as a Source."""

    def __init__(self, spec: Spec, n_tokens: int, context: int, dtype: str, seed: int) -> None:
        text = json.dumps(asdict(spec))
        digest = hashlib.sha256(text.encode()).hexdigest()
        self.plan = Plan(
            model={"name": SYNTHETIC, "revision": digest, "tokenizer_hash": "", "spec": text},
            text="synthetic",
            hooks={HOOK: hook([spec.width])},
            n_tokens=n_tokens,
            context=context,
            dtype=dtype,
            bos_rule="none: ids number the samples",
            seed=seed,
            pack="given",
        )
        self.world = World(spec)
        self.notes: dict[str, Any] = {}
        self.names = [f"sample/{number}" for number in range(-(-n_tokens // context))]

    def pieces(self) -> Iterator[Piece]:
        """One context per document."""
        length = self.plan.context
        for number, name in enumerate(self.names):
            ids_1T = torch.arange(number * length, (number + 1) * length)[None]
            split = "held_out" if held_out(name) else "train"
            owners_1T = torch.full_like(ids_1T, number)
            yield Piece(split, ids_1T, owners_1T, torch.tensor([number]), all_but_first(ids_1T))

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """The samples that the ids name."""
        for tokens_CT in piece.tokens.split(CHUNK):
            yield {HOOK: draw(self.world, tokens_CT, self.plan.seed)[0]}


def world_of(cache: Cache) -> World:
    """The world a synthetic cache was drawn from. Raises UsageError for a cache of a model's
    activations."""
    fields = cache.plan.model.get("spec")
    if fields is None:
        name = cache.plan.model["name"]
        raise UsageError(
            f"{cache.path} holds activations of {name}, not of a synthetic world: their true "
            "features are not known"
        )
    stored = json.loads(fields)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return World(Spec(**values))


def truth(world: World, cache: Cache, tokens_CT: Tensor) -> Tensor:
    """[C, T, G]: the true features' values behind whole contexts of a synthetic cache."""
    return draw(world, tokens_CT, cache.plan.seed)[1]
