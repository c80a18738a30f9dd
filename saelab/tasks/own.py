"""A prompt of one's own, as a row of a table.

Its fields are `clean` and, where wanted, `corrupted` (the twin), `answers` and `wrong` (a text, or
a list), `labels` and `positions` (by name, or as columns such as `labels.number`; a position is a
character's number, or a word of the prompt, whose last character it is) and `group`.
"""

import json
from collections.abc import Sequence
from typing import Any

from saelab.bundled.prompts import Drawn
from saelab.tasks.records import Row
from saelab.tasks.tokens import TWINS

WANTED = '{"clean": "...", "corrupted": "...", "answers": [" x"], "wrong": [" y"]}'
NEEDS = {
    "clean": "clean text",
    "answers": "answer",
    "corrupted": "corrupted twin",
    "labels": "label",
}
PAIR = ("answers", "corrupted")
# Other names of the fields of one's own prompts.
ALIASES = {
    "prompt": "clean",
    "twin": "corrupted",
    "answer": "answers",
    "wrong_answer": "wrong",
    "wrong_answers": "wrong",
    "attributes": "labels",
    "label": "labels",
    "position": "positions",
}


def _spelled(cell: Any) -> Any:
    """A cell's value: what it spells in JSON where that is a list or an object, as in CSV files."""
    if not isinstance(cell, str) or cell[:1] + cell[-1:] not in ("[]", "{}"):
        return cell
    try:
        return json.loads(cell) or cell  # "[]" is a word of some languages
    except ValueError:
        return cell


def _words(given: Any) -> tuple[str, ...]:
    """The answers of a field: a list, or one alone."""
    given = _spelled(given)
    words = (given,) if isinstance(given, str) else tuple(given)
    if not all(isinstance(word, str) for word in words):
        raise TypeError("answers are texts")
    return words


def _named(row: Row, field: str) -> dict[str, Any]:
    """A field that holds values by name: an object, one alone, or columns (`labels.number`)."""
    columns = {name.split(".", 1)[1]: row[name] for name in row if name.startswith(f"{field}.")}
    own = _spelled(row.get(field, {}))
    by_name = {field.removesuffix("s"): own} if isinstance(own, str) else dict(own)
    return {str(name): value for name, value in (by_name | columns).items()}


def _character(text: str, at: Any) -> int:
    """The number of a character: as given, or that of the last one of a word."""
    word = str(at)
    if not isinstance(at, str) or word.lstrip("-").isdigit():
        return int(at)
    if text.count(word) != 1:
        raise ValueError(f"{word!r} stands {text.count(word)} times in {text!r}, not once")
    return text.index(word) + len(word) - 1


def draw(row: Row) -> Drawn:
    """One's own prompt; see the module."""
    row = _canonical(row)
    clean = str(row["clean"])
    labels = {name: str(value) for name, value in _named(row, "labels").items()}
    marks = {name: _character(clean, at) for name, at in _named(row, "positions").items()}
    right, wrong = (_words(row.get(name, ())) for name in ("answers", "wrong"))
    twin, group = (str(row.get(name, "")) for name in ("corrupted", "group"))
    return Drawn(clean, twin, right, wrong, marks, labels, group)


def field_of(name: Any) -> str:
    """A column's field, under its first name."""
    head, dot, rest = str(name).strip().lower().replace(" ", "_").partition(".")
    return ALIASES.get(head, head) + dot + rest


def _canonical(row: Row) -> Row:
    """The row under its fields' first names. Raises ValueError where two columns give one field."""
    fields: Row = {}
    for name, value in row.items():
        if field_of(name) in fields:
            raise ValueError(f"{name!r} gives {field_of(name)!r} a second time")
        fields[field_of(name)] = value
    return fields


def _empty(value: Any) -> bool:
    return hasattr(value, "__len__") and len(value) == 0


def lacking(row: Row, needs: Sequence[str]) -> str:
    """What a row of one's own lacks, "" where nothing."""
    there = {field_of(name) for name, value in row.items() if not _empty(value)}
    there |= {field.partition(".")[0] for field in there}
    field = next((field for field in ("clean", *needs) if field not in there), None)
    if field is None:
        return ""
    why = f": {TWINS}" if field == "corrupted" else ""
    return f"has no {NEEDS[field]}{why}; its fields are {', '.join(row)}, give {field!r}"
