"""Rows of a table of prompts: of a file, a DataFrame or a list."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saelab.errors import UsageError

Row = dict[str, Any]
# A file; a DataFrame, of whose type nothing is said so that pandas stays unimported; records.
Table = str | Path | Sequence[Mapping[str, Any]] | Any
SUFFIXES = (".csv", ".json", ".jsonl")


def name_of(source: Table) -> str:
    """What a table of prompts is called: as its file is, else `prompts`."""
    return Path(source).stem if isinstance(source, str | Path) else "prompts"


def where(source: Table) -> str:
    """What errors call it."""
    return str(source) if isinstance(source, str | Path) else "these prompts"


def rows(source: Table) -> list[Row]:
    """The rows of a CSV file with a header, of a JSON array of objects, of one object per line, of
    a DataFrame or of a list of mappings; a field without a value is left out.

    Raises UsageError for anything else.

    >>> rows([{"clean": "a b", "answer": " c", "corrupted": None}])
    [{'clean': 'a b', 'answer': ' c'}]
    """
    table = _of_file(Path(source)) if isinstance(source, str | Path) else _in_memory(source)
    if not table or not all(isinstance(row, Mapping) for row in table):
        raise UsageError(
            f"{where(source)} holds no prompts: a CSV table with a header, JSON objects, a "
            "DataFrame or a list of mappings is needed"
        )
    return [{name: value for name, value in row.items() if value is not None} for row in table]


def _in_memory(source: Any) -> list[Any]:
    if hasattr(source, "to_dict") and hasattr(source, "notna"):
        # NaN, NaT and NA are what a DataFrame has for a cell without a value.
        return source.astype(object).where(source.notna(), None).to_dict("records")
    return list(source) if isinstance(source, Iterable) else []


def _of_file(path: Path) -> list[Any]:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".csv":
            return list(_of_csv(text))
        if text.lstrip().startswith("["):
            return json.loads(text)
        return [json.loads(line) for line in text.split("\n") if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read the prompts {path}: {error.strerror}") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(
            f"{path} is neither a CSV table nor JSON, an array or one object per line: {error}"
        ) from error


def _of_csv(text: str) -> Iterable[Row]:
    for number, row in enumerate(csv.DictReader(io.StringIO(text, newline="")), start=1):
        if None in row:
            raise ValueError(f"prompt {number} has more cells than the header")
        yield {name: value or None for name, value in row.items()}
