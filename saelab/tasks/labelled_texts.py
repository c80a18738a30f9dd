"""Texts with labels, as people keep them: a CSV file with the columns `text` and `label`."""

import csv
import sys
from pathlib import Path
from typing import NamedTuple

from saelab.errors import UsageError

COLUMNS = ("text", "label")


class LabelledTexts(NamedTuple):
    """Texts and what is known of each."""

    texts: list[str]
    labels: list[str]
    """of each text; a class, or 0 and 1"""

    @property
    def properties(self) -> list[str]:
        """What is told apart: each label by itself, of two the second by name (of 0 and 1: 1)."""
        every = sorted(set(self.labels))
        return every[1:] if len(every) == 2 else every


def read(path: Path) -> LabelledTexts:
    """The rows of a file; columns beside `text` and `label` are left out.

    Raises UsageError, with the row, for a file that is none, has other columns or an empty text,
    and for one whose labels are all the same.

    >>> read(Path("sentiment.csv")).labels[:3]
    ['positive', 'negative', 'positive']
    """
    csv.field_size_limit(sys.maxsize)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file, strict=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UsageError(f"{path} cannot be read as a CSV file: {error}") from None
    for number, row in enumerate(rows, 2):
        fields = [row.get(name) for name in COLUMNS]
        if None in row or not all(fields):
            raise UsageError(
                f"{path}, line {number}: give a text and a label, under a head with the columns "
                f"{','.join(COLUMNS)}; a text that holds a comma stands in quotes"
            )
    labels = [row["label"] for row in rows]
    if len(set(labels)) < 2:
        raise UsageError(f"{path} has {len(set(labels))} labels: two are needed at least")
    return LabelledTexts([row["text"] for row in rows], labels)
