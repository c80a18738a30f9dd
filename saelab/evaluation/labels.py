"""What a token of Python source is: keyword, name, string, comment, docstring, number, operator; in
brackets; indented.

Known without a model or a person, so that probes have something true to predict. Shapes: N tokens,
C characters.
"""

import io
import keyword
import tokenize
from collections.abc import Iterator, Sequence

import numpy as np

KINDS = (
    "keyword",
    "name",
    "string",
    "comment",
    "docstring",
    "number",
    "operator",
    "in brackets",
    "indented twice",
)
OPEN, CLOSE = "([{", ")]}"
SILENT = (tokenize.COMMENT, tokenize.NL)


class _Reader:
    """Walks over a file's lexical tokens and marks the characters [kinds, C] of each."""

    def __init__(self, text: str) -> None:
        lengths = [len(line) for line in text.split("\n")]
        self.starts = np.concatenate([[0], np.cumsum(np.array(lengths) + 1)])
        self.marks = np.zeros((len(KINDS), len(text)), dtype=bool)
        self.depth = self.indent = 0
        self.before: int | None = (
            None  # the last token type that is neither a comment nor an empty line
        )

    def mark(self, name: str, first: tuple[int, int], last: tuple[int, int]) -> None:
        """Mark the characters between two (line from 1, column) places."""
        begin, end = (self.starts[line - 1] + column for line, column in (first, last))
        self.marks[KINDS.index(name), begin:end] = True

    def read(self, token: tokenize.TokenInfo, after: tokenize.TokenInfo | None) -> None:
        """Mark one lexical token; `after` is the next one."""
        span = token.start, token.end
        if token.type == tokenize.OP and token.string in CLOSE:
            self.depth -= 1
        if self.depth > 0 and token.type not in (tokenize.INDENT, tokenize.DEDENT):
            self.mark("in brackets", *span)
        if name := self._name(token, after):
            self.mark(name, *span)
            if self.indent >= 2:
                self.mark("indented twice", *span)
        self.depth += token.type == tokenize.OP and token.string in OPEN
        self.indent += (token.type == tokenize.INDENT) - (token.type == tokenize.DEDENT)
        if token.type not in SILENT:
            self.before = token.type

    def _name(self, token: tokenize.TokenInfo, after: tokenize.TokenInfo | None) -> str | None:
        kind = tokenize.tok_name[token.type]
        if token.type == tokenize.STRING:
            alone = after is not None and after.type in (tokenize.NEWLINE, tokenize.COMMENT)
            return "docstring" if alone and self.before in (None, tokenize.INDENT) else "string"
        if kind.startswith(("FSTRING", "TSTRING")):  # f-strings come in parts from Python 3.12 on
            return "string"
        if token.type == tokenize.NAME:
            return "keyword" if keyword.iskeyword(token.string) else "name"
        return {"COMMENT": "comment", "NUMBER": "number", "OP": "operator"}.get(kind)


def characters(text: str) -> np.ndarray | None:
    """[kinds, C] bool: which of KINDS each character belongs to; None where the text is not Python
    that can be tokenised.

    A docstring is a string statement that opens the file or an indented block; it does not count as
    a string.
    """
    try:
        tokens = list(tokenize.generate_tokens(io.StringIO(text).readline))
    except (tokenize.TokenError, SyntaxError):
        return None
    reader = _Reader(text)
    for token, after in _with_next(tokens):
        reader.read(token, after)
    return reader.marks


def _with_next(
    tokens: list[tokenize.TokenInfo],
) -> Iterator[tuple[tokenize.TokenInfo, tokenize.TokenInfo | None]]:
    return zip(tokens, [*tokens[1:], None], strict=True)


def of_tokens(text: str, offsets: Sequence[tuple[int, int]]) -> np.ndarray | None:
    """[kinds, N] bool: the kinds of model tokens with these character offsets, read at each one's
    first solid character.

    A token of spaces alone has no kind. None where the text is not Python.
    """
    marks = characters(text)
    if marks is None:
        return None
    n = len(text)
    solid = np.array([i if not c.isspace() else n for i, c in enumerate(text)] + [n])
    solid = np.minimum.accumulate(solid[::-1])[
        ::-1
    ]  # the first such character at or after each place
    bounds = np.array(offsets, dtype=np.int64).reshape(-1, 2)
    first = solid[bounds[:, 0]]
    inside = first < bounds[:, 1]
    labels_KT = np.zeros((len(KINDS), len(bounds)), dtype=bool)
    labels_KT[:, inside] = marks[:, first[inside]]
    return labels_KT
