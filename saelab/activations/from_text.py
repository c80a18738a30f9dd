"""A model over text as a Source: documents become tokens, tokens contexts, contexts activations.

Shapes: C contexts, T positions.
"""

import resource
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from saelab import models
from saelab.activations import text as texts
from saelab.activations.packing import Packer
from saelab.activations.plan import Plan, hook
from saelab.activations.source import SPLITS, Piece, all_but_first
from saelab.errors import UsageError
from saelab.models import running


def from_text(
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
) -> "FromText":
    """The activations of a model at `hooks` over n_tokens positions of a text, as a Source.

    Raises UsageError for an unknown hook or dtype, a context longer than the model's, or too few
    tokens.

        source = from_text(models.load("bundled"), "stdlib", ["blocks.1.hook_resid_post"], 500_000)
        cache = Cache.write("cache", source)
    """
    longest: int = model.cfg.n_ctx
    context = min(longest, 1024) if context is None else context
    if not 2 <= context <= longest:
        raise UsageError(f"context={context} must lie between 2 and the model's {longest}")
    if n_tokens < 2 * context:
        raise UsageError(
            f"tokens={n_tokens} is less than two contexts of {context}, one for each split"
        )
    names = list(dict.fromkeys(models.resolve_hook(model, name) for name in hooks))
    if not names:
        raise UsageError("no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post")
    bos, eos, rule = boundaries(model)
    plan = Plan(
        model=models.identity(model).to_dict(),
        text=text,
        hooks={
            name: hook(shape, models.aliases(model, name))
            for name, shape in running.shapes(model, names).items()
        },
        n_tokens=n_tokens,
        context=context,
        text_field=text_field,
        gradients=gradients,
        dtype=dtype,
        bos=bos,
        eos=eos,
        bos_rule=rule,
        seed=seed,
    )
    return FromText(model, plan)


def boundaries(model: Any) -> tuple[int, int, str]:
    """The token that starts every context, the token between documents, and in words where the
    first comes from."""
    bos, eos = model.tokenizer.bos_token_id, model.tokenizer.eos_token_id
    if bos is None and eos is None:
        raise UsageError(
            f"the tokenizer of {models.name_of(model)} has neither a BOS nor an end-of-text token"
        )
    if bos is None:
        return eos, eos, "end-of-text token, as the tokenizer has no BOS"
    return bos, bos if eos is None else eos, "bos token"


class FromText:
    """See `from_text`."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.names: list[str] = []

    def documents(self) -> Iterator[texts.Document]:
        """The documents of the text."""
        plan = self.plan
        words = texts.words(self.model.tokenizer) if plan.text == "bundled-mix" else None
        return texts.documents(plan.text, words, plan.text_field, plan.seed)

    def pieces(self) -> Iterator[Piece]:
        """Contexts, one by one, until the plan's tokens are reached.

        Train and held-out documents are packed apart, so that a context, and a shard, belongs to
        one split. The last place is kept for a split that has nothing yet, however far in the text
        its first document lies.
        """
        plan = self.plan
        self.names = []
        packers = {split: Packer(plan.context, plan.bos, plan.eos) for split in SPLITS}
        n_contexts, n_wanted = 0, -(-plan.n_tokens // plan.context)
        filled: set[str] = set()  # splits that have a context
        for number, document in enumerate(self.documents()):
            self.names.append(document.name)
            split = "held_out" if document.held_out else "train"
            if n_contexts == n_wanted - 1 and filled == {split}:
                continue
            ids = self.model.tokenizer(document.text, add_special_tokens=False, verbose=False)
            for tokens, owners in packers[split].add(number, ids["input_ids"]):
                if n_contexts == n_wanted - 1 and filled == {split}:
                    break
                yield _piece(split, tokens, owners, n_contexts)
                filled.add(split)
                n_contexts += 1
                if n_contexts == n_wanted:
                    return

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """What the model computes, a forward pass at a time."""
        run = running.gradients if self.plan.gradients else running.read
        for tokens_CT in piece.tokens.split(
            running.contexts_per_pass(self.model, self.plan.context)
        ):
            yield run(self.model, tokens_CT, list(self.plan.hooks))


def _piece(split: str, tokens: Any, owners: Any, number: int) -> Piece:
    """One context as a piece."""
    tokens_1T, owners_1T = torch.from_numpy(tokens)[None], torch.from_numpy(owners)[None]
    return Piece(split, tokens_1T, owners_1T, torch.tensor([number]), all_but_first(tokens_1T))


def estimate(source: FromText) -> dict[str, float]:
    """Bytes on disk, seconds and peak memory of a capture, from three timed forward passes; nothing
    is written."""
    plan, model = source.plan, source.model
    shape = (running.contexts_per_pass(model, plan.context), plan.context)
    tokens_CT = torch.randint(
        0, model.cfg.d_vocab, shape, generator=torch.Generator().manual_seed(0)
    )
    piece = Piece(
        "train", tokens_CT, tokens_CT, torch.arange(len(tokens_CT)), all_but_first(tokens_CT)
    )
    list(source.acts(piece))
    passes = []
    for _ in range(3):
        started = time.perf_counter()
        list(source.acts(piece))
        passes.append(time.perf_counter() - started)
    seconds = min(passes) / tokens_CT.numel() * plan.n_tokens
    # Beside a shard, one hook of it is held in float64 for the moments.
    n_contexts = min(plan.shard_contexts, -(-plan.n_tokens // plan.context))
    n_positions = n_contexts * plan.context
    doubled = n_positions * max(entry["width"] for entry in plan.hooks.values()) * 8
    unit = 1 if sys.platform == "darwin" else 1024
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    memory = used + 2 * n_positions * plan.bytes_per_position + doubled + 2 * plan.moments_bytes
    return {"bytes": plan.needed_bytes, "seconds": seconds, "peak_memory_bytes": memory}
