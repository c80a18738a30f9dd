"""What an index's tokens read, and which of them a searched text means. Imports no torch."""

import re
import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from saelab.spelling import Piece

PART = re.compile(r'"((?:\\"|[^"])+)"|(\S+)')


class Phrase(NamedTuple):
    """A part of what is searched."""

    text: str
    """case folded unless exact"""
    exact: bool
    """whether it stood in quotes: blanks and case count"""

    def of(self, text: str) -> str:
        """A text as this phrase is looked for in it."""
        return text if self.exact else text.casefold()

    def within(self, text: str) -> bool:
        """Whether a text holds it."""
        return self.text in self.of(text)

    def equals(self, text: str) -> bool:
        """Whether a text is this phrase: in quotes, to the blank; else whatever case and blanks
        around."""
        return self.text == (text if self.exact else text.casefold().strip())


def phrases(query: str) -> list[Phrase]:
    """The phrases of a query: what stands in quotes, exactly (a quote in it as \\"); else every
    word, whatever its case.

    >>> phrases('" for" Self')
    [Phrase(text=' for', exact=True), Phrase(text='self', exact=False)]
    """
    parts = []
    for quoted, bare in PART.findall(query):
        text = quoted.replace('\\"', '"') or bare.casefold()
        parts.append(Phrase(text, bool(quoted)))
    # Blanks alone, in no quotes, are a token's text in code.
    return parts or ([Phrase(query, True)] if query else [])


class Vocabulary:
    """The tokens of an index, read once."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        rows = connection.execute("select text, bytes, seen from token order by id").fetchall()
        self.texts: list[str] = [text for text, *_ in rows]
        self.seen: list[int] = [seen for *_, seen in rows]
        self._broken = {number: raw for number, (_, raw, _) in enumerate(rows) if raw is not None}

    def text(self, token: int) -> str:
        """What a token reads by itself; without a tokenizer its number."""
        return self.texts[token] if 0 <= token < len(self.texts) else f"⟨{token}⟩"

    def pieces(self, ids: Sequence[int]) -> list[Piece]:
        """What the tokens of a row read."""
        if not self.texts:
            return [f"⟨{token}⟩ " for token in ids]
        return [self._broken.get(token, self.texts[token]) for token in ids]

    def matching(self, query: str, whole: bool = False) -> list[int]:
        """Tokens that hold every phrase of a query (whole: that are it, with its blanks inside),
        most frequent first."""
        parts = phrases(query)
        if whole and len(parts) > 1:
            parts = [Phrase(query.strip().casefold(), False)]
        if not parts:
            return []
        tokens = [
            token
            for token, text in enumerate(self.texts)
            if all(part.equals(text) if whole else part.within(text) for part in parts)
        ]
        return sorted(tokens, key=lambda token: -self.seen[token])
