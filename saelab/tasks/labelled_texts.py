"""Texts with labels, as people keep them: a CSV file with the columns `text` and `label`, perhaps
`start` and `end`; a folder of such files is a set of tasks."""

import csv
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from saelab.errors import UsageError
from saelab.textfiles import kinds, opening
from saelab.textfiles.opening import Damaged

COLUMNS = ("text", "label")
# The layout of the sae-probes wheel (Kantamneni et al. 2025, arXiv 2502.16681) has these heads.
OTHERWISE = {"prompt": "text", "target": "label"}
SPAN = ("start", "end")
MOST_LABELS = 50  # of more a column says how much, not of which kind


class LabelledTexts(NamedTuple):
    """Texts and what is known of each."""

    texts: list[str]
    labels: list[str]
    """of each text; a class, or 0 and 1"""
    spans: list[tuple[int, int]] | None = None
    """the characters, first and behind the last, that each label is of; None: of whole texts"""

    @property
    def properties(self) -> list[str]:
        """What is told apart: each label by itself, of two the second by name (of 0 and 1: 1)."""
        every = sorted(set(self.labels))
        return every[1:] if len(every) == 2 else every


def read(path: Path) -> LabelledTexts:
    """The rows of a file, which may be compressed; other columns are left out. `prompt` and
    `target` stand for `text` and `label`.

    Raises UsageError, with the row, for a file that is none, has other columns, an empty text or a
    span outside of its text, and for one whose labels are all the same (but those of spans: the
    rest of the texts has none) or more than MOST_LABELS.

    >>> read(Path("sentiment.csv")).labels[:3]
    ['positive', 'negative', 'positive']
    """
    rows = list(opening.guarded(path, _rows(path)))
    spans = [(int(row["start"]), int(row["end"])) for row in rows] if _has_spans(rows) else None
    labels = [row["label"] for row in rows]
    if len(set(labels)) < (1 if spans else 2):
        known = "one label" if labels else "no label"
        raise UsageError(f"{path} has {known}: two are needed at least")
    if len(set(labels)) > MOST_LABELS:
        raise UsageError(
            f"{path} has {len(set(labels)):,} labels, more than {MOST_LABELS}: a number is no class"
        )
    return LabelledTexts([row["text"] for row in rows], labels, spans)


def tasks(path: Path, most: int | None = None) -> tuple[dict[str, LabelledTexts], dict[str, str]]:
    """The tasks that a file, or each CSV file of a folder, holds, by name; and of those of a folder
    that are none the reason. most: rows of each that are read, at most, evenly spaced: files may
    be sorted by label.

    >>> by_name, left_out = tasks(Path("sae_probes/data/cleaned_data"))
    """
    if not path.is_dir():
        return {_name(path): read(path)}, {}
    files = [file for file in sorted(path.iterdir()) if kinds.kind(file) == "csv"]
    if not files:
        raise UsageError(f"{path} holds no CSV file: a folder of them, or one, is right")
    by_name, left_out = {}, {}
    for file in files:
        try:
            by_name[_name(file)] = _cut(read(file), most)
        except UsageError as error:
            left_out[_name(file)] = str(error).removeprefix(f"{file} ")
    if not by_name:
        name, reason = next(iter(left_out.items()))
        raise UsageError(f"no file of {path} holds labelled texts; {name}: {reason}")
    return by_name, left_out


def _cut(rows: LabelledTexts, most: int | None) -> LabelledTexts:
    n = len(rows.texts)
    if most is None or n <= most:
        return rows
    kept = [number * n // most for number in range(most)]
    columns = ([column[row] for row in kept] if column else None for column in rows)
    return LabelledTexts(*columns)  # type: ignore[arg-type]


def _name(path: Path) -> str:
    return path.name.partition(".csv")[0]


def _has_spans(rows: list[dict[str, str]]) -> bool:
    return bool(rows) and all(name in rows[0] for name in SPAN)


def _rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows by this project's names. Raises Damaged for what is wrong with one."""
    csv.field_size_limit(sys.maxsize)
    with opening.text(path, newline="") as file:
        reader = csv.reader(file, strict=True)
        head = [OTHERWISE.get(name, name) for name in next(reader, [])]
        for name in COLUMNS:
            if head.count(name) != 1:
                held = ",".join(islice(head, 40)) or "nothing"
                raise Damaged(
                    f"has no column {name!r}, its head holds {held}: give a text and a label under "
                    f"a head with the columns {','.join(COLUMNS)}"
                )
        for fields in reader:
            if not fields:
                continue
            row = dict(zip(head, fields, strict=False))
            if len(fields) != len(head) or not (row["text"] and row["label"]):
                raise Damaged(
                    f"line {reader.line_num} does not fit its head: give a text and a label; a "
                    "text that holds a comma stands in quotes"
                )
            _check_span(row, reader.line_num)
            yield row


def _check_span(row: dict[str, str], line: int) -> None:
    if not all(name in row for name in SPAN):
        return
    length = len(row["text"])
    first, end = (row[name] for name in SPAN)
    whole = first.isascii() and first.isdigit() and end.isascii() and end.isdigit()
    if not whole or not int(first) < int(end) <= length:
        raise Damaged(
            f"line {line} has the span {first!r} to {end!r}: give the first character's number and "
            f"the one behind the last, at most {length}"
        )
