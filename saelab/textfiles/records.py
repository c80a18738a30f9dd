"""The records of a file: of JSON whole values, of tables what stands in the text's column."""

import csv
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from saelab.textfiles import opening, values
from saelab.textfiles.opening import Damaged

MOST = 40  # characters of a field's name, and fields, that a message lists
ROWS = 64  # rows of a table that are held at once: a text may be a book


def records(path: Path, kind: str, field: str) -> Iterator[Any]:
    """The records of a file of this kind (json, csv, tsv, parquet), or of a folder that
    `save_to_disk` wrote (dataset), as they are needed.

    Raises UsageError naming file and record where it is damaged or has no such field.
    """
    return opening.guarded(path, READERS[kind](path, field))


def _json(path: Path, field: str) -> Iterator[Any]:
    with opening.text(path) as file:
        yield from values.values(file)


def _csv(path: Path, field: str, delimiter: str = ",") -> Iterator[Any]:
    csv.field_size_limit(sys.maxsize)
    with opening.text(path, newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        head = next(rows, [])
        column = _column(head, field)
        for number, row in enumerate(row for row in rows if row):
            if len(row) != len(head):
                raise Damaged(
                    f"record {number} has {len(row)} fields, its head {len(head)}: a text that "
                    "holds the separator stands in quotes"
                )
            yield row[column]


def _tsv(path: Path, field: str) -> Iterator[Any]:
    return _csv(path, field, "\t")


def _column(head: list[str], field: str) -> int:
    """The field's place. Raises Damaged where there is none, or more than one."""
    if head.count(field) == 1:
        return head.index(field)
    if not head:
        raise Damaged("holds no records")
    what = f"has {head.count(field) or 'no'} text field"
    raise Damaged(f"{what} {field!r}; its fields are {listed(head)} (--text-field)")


def listed(fields: Iterable[str]) -> str:
    """The first of some fields, for a message: what is damaged may have any."""
    names = [name if len(name) <= MOST else f"{name[:MOST]}..." for name in fields]
    return ", ".join([*names[:MOST], "..."] if len(names) > MOST else names)


def _parquet(path: Path, field: str) -> Iterator[Any]:
    import pyarrow.parquet

    # A buffer of its own size for each column: by itself it reads whole row groups.
    try:
        file = pyarrow.parquet.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    except pyarrow.ArrowInvalid as error:
        raise Damaged(f"is not a Parquet file: {error}") from None
    with file:
        _column(file.schema_arrow.names, field)
        _check_type(field, file.schema_arrow.field(field).type)
        for batch in file.iter_batches(ROWS, columns=[field], use_threads=False):
            yield from batch.column(0).to_pylist()


def _check_type(field: str, kind: Any) -> None:
    from pyarrow import types

    inner = kind.value_type if types.is_dictionary(kind) else kind
    tests = (types.is_string, types.is_large_string, types.is_string_view, types.is_null)
    if not any(test(inner) for test in tests):
        raise Damaged(f"has no text in field {field!r}: its type is {kind}")


def _dataset(path: Path, field: str) -> Iterator[Any]:
    import datasets

    try:
        loaded: Any = datasets.load_from_disk(str(path))
    except AttributeError as error:  # its JSON is of another shape than it expects
        raise Damaged(f"was not written by save_to_disk: {error}") from None
    if isinstance(loaded, datasets.DatasetDict):
        if "train" not in loaded and len(loaded) != 1:
            raise Damaged(f"has no split train, only {', '.join(map(str, loaded))}: name one")
        loaded = loaded["train"] if "train" in loaded else next(iter(loaded.values()))
    _column(loaded.column_names, field)
    _check_type(field, loaded.data.schema.field(field).type)
    for rows in loaded.select_columns([field]).with_format("arrow").iter(ROWS):
        # Offsets of a damaged file may point outside it, where reading ends the process.
        rows.validate(full=True)
        yield from rows[field].to_pylist()


READERS = {
    "json": _json,
    "csv": _csv,
    "tsv": _tsv,
    "parquet": _parquet,
    "dataset": _dataset,
}
