"""Prompts as a tokenizer reads them: their ids, the ids that follow in place, where marks stand."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from saelab.bundled.prompts import Drawn
from saelab.models.tokens import Encoder

ENDING = 16  # characters of a prompt's end; see `Reader.following`


class Unfit(ValueError):
    """A prompt that this tokenizer does not read as a task needs it; says why."""


class Encoded(NamedTuple):
    """A prompt in tokens.

    drawn: its words.
    clean, corrupted: ids, the beginning-of-text token first where the tokenizer has one.
    right, wrong: the id of each answer, in place.
    positions: name -> number of a token of `clean`; `end` is the last one.
    """

    drawn: Drawn
    clean: list[int]
    corrupted: list[int]
    right: list[int]
    wrong: list[int]
    positions: dict[str, int]


class Reader:
    """A tokenizer, and the answers that it has read so far. Text is text: a special token that it
    spells out is none."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.encoder = Encoder(tokenizer)
        first = tokenizer.bos_token_id
        # What starts the contexts that models are cached on: see `tokens.bounds`.
        first = tokenizer.eos_token_id if first is None else first
        self.bos = [] if first is None else [first]
        self.read: dict[tuple[str, str], list[int] | None] = {}  # None: it merges

    def ids(self, texts: Sequence[str]) -> list[list[int]]:
        """The token ids of each text, nothing put before or behind them."""
        return self.encoder.ids(texts)

    def encode(self, drawn: Drawn) -> Encoded:
        """The prompt in tokens. Raises Unfit for twins of unequal length, for answers that are not
        one token in place, and for marks beyond the text."""
        clean, positions = self._clean(drawn)
        corrupted = [*self.bos, *self.ids([drawn.corrupted])[0]] if drawn.corrupted else []
        if corrupted and len(clean) != len(corrupted):
            lengths = f"has {len(clean)} tokens, its twin {len(corrupted)}"
            raise Unfit(f"{drawn.clean!r} {lengths}")
        right = self.following(drawn.clean, drawn.right, first=True)
        wrong = self.following(drawn.clean, drawn.wrong)
        return Encoded(drawn, clean, corrupted, right, wrong, positions)

    def _clean(self, drawn: Drawn) -> tuple[list[int], dict[str, int]]:
        positions, spans = {}, []
        if drawn.marks:
            read, spans = self.encoder.spans(drawn.clean)
        else:
            (read,) = self.ids([drawn.clean])
        for name, at in drawn.marks.items():
            place = next((i for i, (low, high) in enumerate(spans) if low <= at < high), None)
            if place is None:
                text = f"a prompt of {len(drawn.clean)}: {drawn.clean!r}"
                raise Unfit(f"position {name!r} is character {at} of {text}")
            positions[name] = len(self.bos) + place
        ids = [*self.bos, *read]
        return ids, {**positions, "end": len(ids) - 1}

    def following(self, text: str, words: Sequence[str], first: bool = False) -> list[int]:
        """The id of each word as it follows the text; `first`: at least the first must follow.

        A word by itself may read otherwise: a tokenizer with a dummy prefix, such as Llama-2's,
        puts a space before every text. What follows depends on how the text ends alone, so that
        texts with the same last characters share what was read. A word that merges with the text
        (GPT-2 reads 1300 as one token, 13 and 32 as two) is taken by itself. Raises Unfit for a
        word that is not one token, and for a first one that merges.
        """
        ending = text[-ENDING:]
        new = [word for word in dict.fromkeys(words) if (ending, word) not in self.read]
        if new:
            before, *wholes = self.ids([text, *(text + word for word in new)])
            for word, whole in zip(new, wholes, strict=True):
                follows = whole[: len(before)] == before
                self.read[ending, word] = whole[len(before) :] if follows else None
        if first and words and self.read[ending, words[0]] is None:
            raise Unfit(self._merged(text, words[0]))
        return [self._single(text, word, self.read[ending, word]) for word in words]

    def _single(self, text: str, word: str, ids: list[int] | None) -> int:
        by_itself = self.ids([word])[0] if ids is None else ids
        if len(by_itself) == 1:
            return by_itself[0]
        if ids is None:
            raise Unfit(self._merged(text, word))
        raise Unfit(f"the answer {word!r} is {len(ids)} tokens after {text!r}, not one")

    def _merged(self, text: str, word: str) -> str:
        before, whole = self.ids([text, text + word])
        same = next(i for i, (a, b) in enumerate(zip(before, whole, strict=False)) if a != b)
        last, joint = (self.tokenizer.decode(ids[same:]) for ids in (before, whole))
        return (
            f"the end of {text!r}, {last!r}, merges with the answer {word!r} to {joint!r}: end "
            "the prompt before a space, and begin the answer with it"
        )
