"""A synthetic world as an activation cache on disk, which `saelab train --cache` reads like any
other.

A token id is the number of its sample: the world stands in for the model that maps ids to
activations, so that the ids of a cache are all it takes to know what is true of its tokens. Shapes:
C contexts, T positions, D width, G true features.
"""

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.activations.settings import DTYPES, SHARD_BYTES, Settings
from saelab.activations.writer import Writer
from saelab.documents import held_out
from saelab.errors import UsageError
from saelab.evaluation.synthetic import Spec, World

HOOK = "synthetic"


class _Model:
    """What capture asks of a model: activations by token id."""

    def __init__(self, world: World, seed: int) -> None:
        self.cfg = SimpleNamespace(device="cpu", n_heads=1)
        self.world, self.seed = world, seed

    def run_with_hooks(self, tokens_CT: Tensor, fwd_hooks: list, **_: Any) -> None:
        """Call every hook with the samples [C, T, D] that the ids name."""
        x_CTD = draw(self.world, tokens_CT, self.seed)[0]
        for name, call in fwd_hooks:
            call(x_CTD, SimpleNamespace(name=name))


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
    progress: Any = None,
) -> Path:
    """Write (or resume, or find finished) a cache of n_tokens samples of the spec's world at the
    hook `synthetic`; its folder.

    Each context is a document of its own, held out by the project's one rule. Raises UsageError for
    an impossible spec, an unknown dtype, or too few tokens for a held-out context.
    """
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    world, n_contexts = World(spec), -(-n_tokens // context)
    text = json.dumps(asdict(spec))
    digest = hashlib.sha256(text.encode()).hexdigest()
    identity = {"name": "synthetic", "revision": digest, "tokenizer_hash": "", "spec": text}
    shard = max(1, SHARD_BYTES // (spec.width * context * DTYPES[dtype].itemsize))
    settings = Settings(
        identity,
        "synthetic",
        "",
        (HOOK,),
        n_tokens,
        context,
        False,
        dtype,
        shard,
        0,
        0,
        "none: ids number the samples",
        seed,
    )
    hooks = {HOOK: {"shape": [spec.width], "width": spec.width, "aliases": []}}
    writer = Writer(_Model(world, seed), settings, hooks, Path(out), progress)
    if writer.manifest["complete"]:
        return Path(out)
    writer.clear()
    names = [f"sample/{number}" for number in range(n_contexts)]
    for number, name in enumerate(names):
        ids = np.arange(number * context, (number + 1) * context)
        writer.add("held_out" if held_out(name) else "train", ids, np.full(context, number))
    writer.finish(names)
    return Path(out)


def world_of(cache: Cache) -> World:
    """The world a synthetic cache was drawn from. Raises UsageError for a cache of a model's
    activations."""
    fields = cache.manifest["model"].get("spec")
    if fields is None:
        name = cache.manifest["model"]["name"]
        raise UsageError(
            f"{cache.path} holds activations of {name}, not of a synthetic world: their true features are not known"
        )
    stored = json.loads(fields)
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()
    }
    return World(Spec(**values))


def truth(world: World, cache: Cache, tokens_CT: Tensor) -> Tensor:
    """[C, T, G]: the true features' values behind whole contexts of a synthetic cache."""
    return draw(world, tokens_CT, cache.manifest["settings"]["seed"])[1]
