"""A model over text as a Source: documents become tokens, tokens contexts, contexts activations.

Shapes: C contexts, T positions.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from torch import Tensor

from saelab import models
from saelab.activations.packing import PACKERS
from saelab.activations.plan import Plan, hook
from saelab.activations.reading import Reading
from saelab.activations.source import Piece
from saelab.activations.text import Text, is_here
from saelab.activations.text_pieces import TextPieces, unchanged
from saelab.errors import UsageError
from saelab.models import heads, running, tokens

PROBED = 1000  # documents whose length decides the context where each has one of its own
UNCOUNTED = ("", "special")


def from_text(
    model: Any,
    text: str | Text,
    hooks: Sequence[str],
    n_tokens: int,
    *,
    context: int | None = None,
    n_held_out: int = 0,
    gradients: bool = False,
    dtype: str = "float16",
    text_field: str = "text",
    pack: str = "documents",
    parse_special: bool = False,
    bos: int | str | None = None,
    uncounted: str = "",
    seed: int = 0,
) -> "FromText":
    """The activations of a model at `hooks` over n_tokens positions of a text, as a Source.

    context: positions of each (default: the model's, at most 1024; where each document is a context
    of its own, what the longest of the first PROBED needs). n_held_out: how many of the positions
    to hold out, where the text's share will not do. pack: row of PACKERS. parse_special: added
    tokens (`<|endoftext|>`) are found where the text spells them; else text is text. bos: see
    `tokens.bounds`. uncounted: "special" for no tokens that stand for no text. Raises UsageError
    for an unknown hook, dtype or packing, a context longer than the model's, too few tokens, a
    text that cannot fill a context of each split, and gradients of a model without losses.

        source = from_text(models.load("bundled"), "stdlib", ["blocks.1.hook_resid_post"], 500_000)
        cache = Cache.write("cache", source)
    """
    if pack not in PACKERS:
        raise UsageError(f"no packing {pack!r}; there are {', '.join(PACKERS)}")
    if uncounted not in UNCOUNTED:
        raise UsageError(f"uncounted={uncounted!r}: only special tokens can be left out")
    text = text if isinstance(text, Text) else Text(text, text_field, seed=seed)
    bounds = _bounds(model, bos)
    reading = Reading(text, model.tokenizer, parse_special)
    context = _context(model, reading, pack) if context is None else context
    _check_sizes(context, model.cfg.n_ctx, n_tokens, n_held_out)
    plan = Plan(
        model=models.record(model),
        text=text.name,
        hooks=_asked(model, hooks, gradients),
        n_tokens=n_tokens,
        context=context,
        n_held_out=n_held_out,
        text_field=text.field,
        gradients=gradients,
        dtype=dtype,
        **bounds._asdict(),
        seed=text.seed,
        pack=pack,
        masked=pack != "documents" or bool(uncounted),
        parse_special=parse_special,
        uncounted=uncounted,
        model_dtype=models.dtype_of(model),
        split_rule=text.split.rule,
    )
    reading.check_room(2 if pack != "documents" else context - (bounds.bos is not None))
    return FromText(model, plan, reading)


def _asked(model: Any, hooks: Sequence[str], gradients: bool) -> dict[str, dict]:
    """The plan's entries of the hook points, once each, by the name that each was first asked for
    by."""
    if gradients:
        heads.refuse_without_losses(model)
    shapes = running.shapes(model, models.once_each(model, hooks))
    return {name: hook(shape, models.aliases(model, name)) for name, shape in shapes.items()}


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


def _bounds(model: Any, asked: int | str | None) -> tokens.Bounds:
    """The tokens that bound the model's contexts. Raises UsageError for one without a tokenizer, or
    with another model's, and for tokens that the model has no embedding for."""
    name, n_embeddings = models.name_of(model), model.cfg.d_vocab
    if model.tokenizer is None:
        raise UsageError(f"{name} has no tokenizer: give models.load one")
    tokens.check_fits(model.tokenizer, n_embeddings, name)
    bounds = tokens.bounds(model.tokenizer, asked)
    for token in (bounds.bos, bounds.eos):
        if token is not None and token >= n_embeddings:
            raise UsageError(
                f"token {token:,} would bound the contexts, and {name} has embeddings for "
                f"{n_embeddings:,}: --bos ID names another"
            )
    return bounds


def _context(model: Any, reading: Reading, pack: str) -> int:
    """The positions of a context where nobody says how many."""
    longest = min(model.cfg.n_ctx, 1024)
    if pack == "documents":
        return longest
    probed = islice(reading.tokenised(), PROBED)
    lengths = (1 + sum(map(len, pieces)) for _, pieces in probed)
    return max(2, min(longest, max(lengths, default=1)))


class FromText:
    """See `from_text`."""

    def __init__(self, model: Any, plan: Plan, reading: Reading) -> None:
        self.model, self.plan, self.reading = model, plan, reading
        self.names: list[str] = []
        self.notes: dict[str, Any] = {}

    @property
    def is_here(self) -> bool:
        """Whether the text needs no network."""
        return is_here(self.plan.text)

    @property
    def device(self) -> str:
        """Where the model's activations lie."""
        return str(self.model.cfg.device)

    def pieces(self, state: Mapping[str, Any] | None = None) -> Iterator[Piece]:
        """Its contexts, one by one: see `TextPieces`."""
        special = tokens.special(self.model.tokenizer) if self.plan.uncounted else ()
        pieces = TextPieces(self.plan, self.reading, self.model.cfg.d_vocab, special, state)
        self.names, self.notes = pieces.names, pieces.notes
        return iter(pieces)

    def is_unchanged(self, notes: Mapping[str, Any]) -> bool:
        """Whether the text is surely what it was when the notes were taken, told without
        tokenising it."""
        return unchanged(self.reading, notes)

    def acts(self, piece: Piece) -> Iterator[dict[str, Tensor]]:
        """What the model computes, a forward pass at a time."""
        size, names = (
            running.contexts_per_pass(self.model, self.plan.context, logits=self.plan.gradients),
            list(self.plan.hooks),
        )
        for first in range(0, len(piece.tokens), size):
            part = piece.part(slice(first, first + size))
            if self.plan.gradients:
                yield running.gradients(self.model, part.tokens, names, part.counted)
            else:
                yield running.read(self.model, part.tokens, names)
