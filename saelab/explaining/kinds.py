"""What a token is by its characters alone, and where it stands in the text of its context.

Shapes: C contexts of T positions, V vocabulary.
"""

import numpy as np
from numpy.typing import NDArray

KINDS = (
    "line breaks",
    "blanks",
    "digits",
    "capitalised words",
    "upper-case words",
    "lower-case words",
    "mixed-case words",
    "words with digits or underscores",
    "opening brackets",
    "closing brackets",
    "quotation marks",
    "operators",
    "other punctuation",
    "text outside ASCII",
    "mixtures of letters and signs",
)
MARKS = (
    ("opening brackets", "([{<"),
    ("closing brackets", ")]}>"),
    ("quotation marks", "'\"`“”‘’«»"),
    ("operators", "+-*/=<>%&|^~!@"),
)
REGIONS = ("code", "comment", "string", "long string")
QUOTES = ('"""', "'''", '"', "'")


def kind(text: str) -> int:
    """The number in KINDS of a token's text.

    >>> KINDS[kind(" Self")]
    'capitalised words'
    """
    body = text.strip()
    if "\n" in text and not body:
        return KINDS.index("line breaks")
    if not body:
        return KINDS.index("blanks")
    if not body.isascii():
        return KINDS.index("text outside ASCII")
    if body.isdigit():
        return KINDS.index("digits")
    if body.isalpha():
        return KINDS.index(_case(body))
    if body.replace("_", "a").isalnum():
        return KINDS.index("words with digits or underscores")
    for name, characters in MARKS:
        if all(character in characters for character in body):
            return KINDS.index(name)
    sign = any(character.isalnum() for character in body)
    return KINDS.index("mixtures of letters and signs" if sign else "other punctuation")


def _case(word: str) -> str:
    if word.islower():
        return "lower-case words"
    if word.isupper() and len(word) > 1:
        return "upper-case words"
    capitalised = word[0].isupper() and (len(word) == 1 or word[1:].islower())
    return "capitalised words" if capitalised else "mixed-case words"


def lines(tokens_CT: NDArray, texts: list[str]) -> tuple[NDArray, NDArray]:
    """[C, T] each: how many tokens of its line stand before a token, and by how many blanks its
    line is indented; -1 before a context's first line break."""
    breaks_V = np.array(["\n" in text for text in texts])
    tail_V = np.array([len(text) - 1 - text.rfind("\n") if "\n" in text else 0 for text in texts])
    lead_V = np.array([len(text) - len(text.lstrip(" \t")) for text in texts])
    n_positions = tokens_CT.shape[1]
    at_T = np.arange(n_positions)
    breaks_CT = breaks_V[tokens_CT]
    # The last break before each position; its own break ends a line, so it is looked for before.
    last_CT = np.maximum.accumulate(np.where(breaks_CT, at_T, -1), axis=1)
    last_CT = np.concatenate([np.full((len(tokens_CT), 1), -1), last_CT[:, :-1]], axis=1)
    known_CT = last_CT >= 0
    place_CT = np.where(known_CT, at_T - last_CT - 1, -1)
    head_CT = np.minimum(np.where(known_CT, last_CT + 1, 0), n_positions - 1)
    breaker_CT = np.take_along_axis(tokens_CT, np.maximum(last_CT, 0), axis=1)
    first_CT = np.take_along_axis(tokens_CT, head_CT, axis=1)
    indent_CT = np.where(known_CT, tail_V[breaker_CT] + lead_V[first_CT], -1)
    return place_CT, indent_CT


def regions(tokens_CT: NDArray, texts: list[str]) -> NDArray:
    """[C, T] number in REGIONS of each token, read from the start of its context as Python source:
    a # makes a comment, quotes a string. A guess where a context begins within one."""
    region_CT = np.zeros(tokens_CT.shape, np.int8)
    steps: dict[tuple[int, str], tuple[str, int]] = {}
    for row, tokens in zip(region_CT, tokens_CT.tolist(), strict=True):
        state = ""
        for position, token in enumerate(tokens):
            key = (token, state)
            if key not in steps:
                after = walk(texts[token], state)
                steps[key] = (after, _region(state or after))
            state, row[position] = steps[key]
    return region_CT


def walk(text: str, state: str) -> str:
    """The state after a text: empty in code, else `#` or the quotes that end the string."""
    at = 0
    while at < len(text):
        character = text[at]
        if state == "":
            quote = next((q for q in QUOTES if text.startswith(q, at)), "")
            state = quote or ("#" if character == "#" else "")
            at += len(quote) or 1
        elif character == "\\":
            at += 2
        elif character == "\n" and len(state) == 1:
            state = ""
            at += 1
        elif state != "#" and text.startswith(state, at):
            at += len(state)
            state = ""
        else:
            at += 1
    return state


def _region(state: str) -> int:
    if not state:
        return 0
    return 1 if state == "#" else 2 if len(state) == 1 else 3
