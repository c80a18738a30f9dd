"""What a capture is asked to do, checked before anything is written; and what it will cost.

Shapes: C contexts, T positions.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from saelab import models
from saelab.errors import UsageError
from saelab.models import running
from saelab.models.running import CONTEXTS, contexts_per_pass, shapes

SHARD_BYTES = 64_000_000
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a cache; a folder that holds other settings is not
    resumed."""

    model: dict[str, str]
    text: str
    text_field: str
    hooks: tuple[str, ...]
    n_tokens: int
    context: int
    gradients: bool
    dtype: str
    shard_contexts: int
    bos: int
    eos: int
    bos_rule: str
    seed: int

    def differing(self, held: dict[str, Any]) -> str:
        """`field: asked / held` for each field that differs from a manifest's settings."""
        asked = json.loads(json.dumps(asdict(self)))
        return ", ".join(
            f"{k}: {v!r} / {held.get(k)!r}" for k, v in asked.items() if v != held.get(k)
        )


def settings_for(
    model: Any,
    text: str,
    hooks: Sequence[str],
    n_tokens: int,
    *,
    context: int | None = None,
    gradients: bool = False,
    dtype: str = "float16",
    text_field: str = "text",
    seed: int = 0,
) -> tuple[Settings, dict[str, dict]]:
    """The settings of a capture with canonical hook names, and each hook's shape, width and
    aliases.

    Raises UsageError for an unknown hook or dtype, a context longer than the model's, or too few
    tokens.
    """
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    longest: int = model.cfg.n_ctx
    context = min(longest, 1024) if context is None else context
    if not 2 <= context <= longest:
        raise UsageError(f"context={context} must lie between 2 and the model's {longest}")
    if n_tokens < 2 * context:
        raise UsageError(
            f"tokens={n_tokens} is less than two contexts of {context}, one for each split"
        )
    names = tuple(dict.fromkeys(models.resolve_hook(model, name) for name in hooks))
    if not names:
        raise UsageError("no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post")
    bos, eos, rule = boundaries(model)
    described = {
        name: {"shape": shape, "width": math.prod(shape), "aliases": models.aliases(model, name)}
        for name, shape in shapes(model, names).items()
    }
    per_context = (
        sum(h["width"] for h in described.values())
        * context
        * DTYPES[dtype].itemsize
        * (2 if gradients else 1)
    )
    shard = max(CONTEXTS, SHARD_BYTES // per_context // CONTEXTS * CONTEXTS)
    fields = (
        models.identity(model).to_dict(),
        text,
        text_field,
        names,
        n_tokens,
        context,
        gradients,
        dtype,
        shard,
        bos,
        eos,
        rule,
        seed,
    )
    return Settings(*fields), described


def boundaries(model: Any) -> tuple[int, int, str]:
    """The token that starts every context, the token between documents, and in words where the
    first comes from."""
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    if bos is None and eos is None:
        raise UsageError(
            f"the tokenizer of {models.identity(model).name} has neither a BOS nor an end-of-text token"
        )
    if bos is None:
        return eos, eos, "end-of-text token, as the tokenizer has no BOS"
    return bos, bos if eos is None else eos, "bos token"


def needed_bytes(settings: Settings, hooks: dict[str, dict]) -> int:
    """Size of the finished cache: activations (and gradients), tokens, document numbers,
    moments."""
    n_tokens = -(-settings.n_tokens // settings.context) * settings.context
    width = sum(h["width"] for h in hooks.values()) * (2 if settings.gradients else 1)
    return n_tokens * (width * DTYPES[settings.dtype].itemsize + 8) + _moments_bytes(hooks)


def _moments_bytes(hooks: dict[str, dict]) -> int:
    return sum((h["width"] ** 2 + h["width"] + 1) * 8 for h in hooks.values()) * 2


def estimate(model: Any, settings: Settings, hooks: dict[str, dict]) -> dict[str, float]:
    """Bytes on disk, seconds and peak memory of a capture, from three timed forward passes; nothing
    is written."""
    shape = (contexts_per_pass(model, settings.context), settings.context)
    tokens_CT = torch.randint(
        0, model.cfg.d_vocab, shape, generator=torch.Generator().manual_seed(0)
    )
    run = running.gradients if settings.gradients else running.read
    run(model, tokens_CT, settings.hooks)
    passes = []
    for _ in range(3):
        started = time.perf_counter()
        run(model, tokens_CT, settings.hooks)
        passes.append(time.perf_counter() - started)
    seconds = min(passes) / tokens_CT.numel() * settings.n_tokens
    # A shard is held twice while its parts are joined, and one hook of it in float64 for the
    # moments.
    n_contexts = min(settings.shard_contexts, -(-settings.n_tokens // settings.context))
    width = sum(h["width"] for h in hooks.values()) * (2 if settings.gradients else 1)
    shard = n_contexts * settings.context * width * DTYPES[settings.dtype].itemsize
    doubled = n_contexts * settings.context * max(h["width"] for h in hooks.values()) * 8
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )
    memory = used + 2 * shard + doubled + 2 * _moments_bytes(hooks)
    return {"bytes": needed_bytes(settings, hooks), "seconds": seconds, "peak_memory_bytes": memory}
