"""A text as a model reads it: the tokens that its contexts begin with, then those of the text.

Shapes: T positions.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.models import tokens
from saelab.spelling import pieces, spell
from saelab.tasks.reading import Reader, Unfit


class Prompt(NamedTuple):
    """A text in tokens."""

    text: str
    """as it was given"""
    tokens: Tensor
    """[T] int64; at position 0 what starts a context, at which no SAE is trained"""
    texts: list[str]
    """[T] what each token reads, as in `spelling.spell`"""
    first: int
    """number of the first token of the text: 1, or 0 where contexts begin with text"""


def prompt(
    model: Any, text: str, bos: int | str | None = None, parse_special: bool = False
) -> Prompt:
    """The tokens of a text for a model with a tokenizer.

    bos: as of `tokens.bounds`. parse_special: text that spells out a special token
    (`<|endoftext|>`) becomes that token; else it stays text. Raises UsageError for a text without a
    token, and for one that is longer than the model's context.

    >>> prompt(models.load("bundled"), "def f(self):").texts
    ['<|bos|>', 'def', ' f', '(', 'self', '):']
    """
    first = tokens.bounds(model.tokenizer, bos).bos
    ids = tokens.Encoder(model.tokenizer, parse_special).ids([text])[0]
    start = [] if first is None else [first]
    n_room = model.cfg.n_ctx - len(start)
    if not ids:
        raise UsageError("the text is empty: give one of at least one token")
    if len(ids) > n_room:
        raise UsageError(
            f"the text has {len(ids):,} tokens, the model's context has room for {n_room:,}: "
            f"leave out {len(ids) - n_room:,}"
        )
    read = pieces(model.tokenizer, model.cfg.d_vocab)
    tokens_T = torch.tensor([*start, *ids])
    return Prompt(text, tokens_T, spell([read[i] for i in tokens_T.tolist()]), len(start))


def next_token(model: Any, text: str, word: str) -> int:
    """The id of a word as the token that follows a text.

    Raises UsageError for a word that is no single token there.

    >>> next_token(models.load("bundled"), "def f(self", "):")
    """
    try:
        return Reader(model.tokenizer).following(text, [word], first=True)[0]
    except Unfit as problem:
        raise UsageError(f"{word!r} cannot be the next token: {problem}") from None


def spelled(model: Any, ids: list[int]) -> list[str]:
    """What tokens read in a row, as in `spelling.spell`."""
    read = pieces(model.tokenizer, model.cfg.d_vocab)
    return spell([read[number] for number in ids])
