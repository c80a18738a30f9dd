"""A model over text as a Source: documents become tokens, tokens contexts, contexts activations.

Shapes: C contexts, T positions.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from saelab import models
from saelab.activations import text as texts
from saelab.activations.packing import PACKERS, Packed
from saelab.activations.plan import Plan, hook
from saelab.activations.source import SPLITS, Piece
from saelab.documents import Document
from saelab.errors import UsageError
from saelab.models import running

AT_ONCE = 1 << 17  # characters that are tokenised together
PROBED = 1000  # documents whose length decides the context where each has one of its own


def from_text(
    model: Any,
    text: str,
    hooks: Sequence[str],
    n_tokens: int,
    *,
    context: int | None = None,
    n_held_out: int = 0,
    gradients: bool = False,
    dtype: str = "float16",
    text_field: str = "text",
    pack: str = "documents",
    seed: int = 0,
) -> "FromText":
    """The activations of a model at `hooks` over n_tokens positions of a text, as a Source.

    context: positions of each (default: the model's, at most 1024; where each document is a context
    of its own, what the longest of the first PROBED needs). n_held_out: how many of the positions
    to hold out, where the text's share will not do. pack: row of PACKERS. Raises UsageError for an
    unknown hook, dtype or packing, a context longer than the model's, or too few tokens.

        source = from_text(models.load("bundled"), "stdlib", ["blocks.1.hook_resid_post"], 500_000)
        cache = Cache.write("cache", source)
    """
    if pack not in PACKERS:
        raise UsageError(f"no packing {pack!r}; there are {', '.join(PACKERS)}")
    if context is None:
        context = _context(model, _documents(model, text, text_field, seed), pack)
    _check_sizes(context, model.cfg.n_ctx, n_tokens, n_held_out)
    names = _asked(model, hooks)
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
        n_held_out=n_held_out,
        text_field=text_field,
        gradients=gradients,
        dtype=dtype,
        bos=bos,
        eos=eos,
        bos_rule=rule,
        seed=seed,
        pack=pack,
        masked=pack != "documents",
    )
    return FromText(model, plan)


def _asked(model: Any, hooks: Sequence[str]) -> list[str]:
    """The hook points once each, by the name that each was first asked for by."""
    by_point: dict[str, str] = {}
    for name in hooks:
        by_point.setdefault(models.resolve_hook(model, name), name)
    if not by_point:
        raise UsageError("no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post")
    return list(by_point.values())


def _check_sizes(context: int, longest: int, n_tokens: int, n_held_out: int) -> None:
    """Raise UsageError for sizes that leave a split, or a prediction, nothing."""
    if not 2 <= context <= longest:
        raise UsageError(f"context={context} must lie between 2 and the model's {longest}")
    if n_tokens < 2 * context:
        raise UsageError(
            f"tokens={n_tokens} is less than two contexts of {context}, one for each split"
        )
    if n_held_out > n_tokens - context:
        raise UsageError(
            f"held_out={n_held_out} leaves no context of {context} to train on: "
            f"at most {n_tokens - context} of tokens={n_tokens}"
        )


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


def _documents(model: Any, text: str, text_field: str, seed: int) -> Iterator[Document]:
    words = texts.words(model.tokenizer) if text == "bundled-mix" else None
    return texts.documents(text, words, text_field, seed)


def _tokenised(
    model: Any, documents: Iterable[Document], wanted: Callable[[Document], Any] = lambda _: True
) -> Iterator[tuple[Document, list[int]]]:
    """Each document with its token ids, none where it is not wanted; many are tokenised at once,
    which uses every core."""
    for batch in _batches(documents):
        words = {i: document.text for i, document in enumerate(batch) if wanted(document)}
        ids = {}
        if words:
            told = model.tokenizer([*words.values()], add_special_tokens=False, verbose=False)
            ids = dict(zip(words, told["input_ids"], strict=True))
        yield from ((document, ids.get(i, [])) for i, document in enumerate(batch))


def _batches(documents: Iterable[Document]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    n_characters = 0
    for document in documents:
        batch.append(document)
        n_characters += len(document.text)
        if n_characters >= AT_ONCE:
            yield batch
            batch, n_characters = [], 0
    if batch:
        yield batch


def _context(model: Any, documents: Iterable[Document], pack: str) -> int:
    """The positions of a context where nobody says how many."""
    longest = min(model.cfg.n_ctx, 1024)
    if pack == "documents":
        return longest
    probed = islice(_tokenised(model, documents), PROBED)
    return min(longest, 1 + max((len(ids) for _, ids in probed), default=1))


def _split(document: Document) -> str:
    return "held_out" if document.held_out else "train"


class FromText:
    """See `from_text`."""

    def __init__(self, model: Any, plan: Plan) -> None:
        self.model, self.plan = model, plan
        self.names: list[str] = []
        self.notes: dict[str, Any] = {}

    def pieces(self) -> Iterator[Piece]:
        """Contexts, one by one, until the plan's tokens are reached.

        Train and held-out documents are packed apart, so that a context, and a shard, belongs to
        one split. Documents of a split that is full are passed over.
        """
        plan = self.plan
        self.names = []
        packer = PACKERS[plan.pack]
        packers = {split: packer(plan.context, plan.bos, plan.eos) for split in SPLITS}
        n_contexts = dict.fromkeys(SPLITS, 0)
        documents = _documents(self.model, plan.text, plan.text_field, plan.seed)
        tokenised = _tokenised(
            self.model, documents, lambda document: self._room(_split(document), n_contexts)
        )
        for number, (document, ids) in enumerate(tokenised):
            self.names.append(document.name)
            split = _split(document)
            if not self._room(split, n_contexts):
                continue
            for packed in packers[split].add(number, ids):
                if plan.masked:
                    self.notes["cut"] = sum(each.n_cut for each in packers.values())
                yield _piece(split, packed, sum(n_contexts.values()))
                n_contexts[split] += 1
                if not self._room(split, n_contexts):
                    break
            if not any(self._room(split, n_contexts) for split in SPLITS):
                return

    def _room(self, split: str, n_contexts: dict[str, int]) -> int:
        """How many more contexts a split may have. Of a plan that does not say, all that are left,
        the last of them kept for a split that has nothing yet, however late its first document."""
        plan = self.plan
        n_wanted, n_held_out = (-(-n // plan.context) for n in (plan.n_tokens, plan.n_held_out))
        if n_held_out:
            wanted = {"train": n_wanted - n_held_out, "held_out": n_held_out}
            return wanted[split] - n_contexts[split]
        others = sum(n_contexts.values()) - n_contexts[split]
        return n_wanted - n_contexts[split] - max(1, others)

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """What the model computes, a forward pass at a time."""
        size, names = (
            running.contexts_per_pass(self.model, self.plan.context),
            list(self.plan.hooks),
        )
        for first in range(0, len(piece.tokens), size):
            part = piece.part(slice(first, first + size))
            if self.plan.gradients:
                yield running.gradients(self.model, part.tokens, names, part.counted)
            else:
                yield running.read(self.model, part.tokens, names)


def _piece(split: str, packed: Packed, number: int) -> Piece:
    """One context as a piece."""
    tokens_1T, owners_1T, counted_1T = (torch.from_numpy(column)[None] for column in packed)
    return Piece(split, tokens_1T, owners_1T, torch.tensor([number]), counted_1T)
