"""Tables as CSV and JSON: any rows that are named tuples or mappings, with all their digits."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

SCHEMA = "saelab/table/1"


class Table(NamedTuple):
    """A table to write."""

    name: str
    """what its file is called"""
    rows: list[dict[str, Any]]
    """values by column; lists and mappings within are kept as they are"""


def table(name: str, rows: Iterable[Any], **first: Any) -> Table:
    """A table from named tuples or mappings; first: columns that stand before theirs.

    >>> table("tokens", feature.by_total, feature=7)
    """
    return Table(name, [{**first, **_plain(row)} for row in rows])


def _plain(value: Any) -> Any:
    """Named tuples as mappings, all the way down."""
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set):
        return [_plain(inner) for inner in value]
    return value.item() if hasattr(value, "item") else value


def to_csv(one: Table) -> str:
    """The table as CSV: a column per field, `score.low` for a field's field; lists as JSON.

    >>> to_csv(table("a", [{"x": 1, "y": {"low": 2}}]))
    'x,y.low\\n1,2\\n'
    """
    flat = [dict(_flat(row)) for row in one.rows]
    columns = list(dict.fromkeys(name for row in flat for name in row))
    written = io.StringIO()
    writer = csv.DictWriter(written, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat)
    return written.getvalue()


def _flat(row: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{before}{name}.")
        else:
            listed = isinstance(value, list)
            yield before + name, json.dumps(value, ensure_ascii=False) if listed else value


def to_json(one: Table, **about: Any) -> dict[str, Any]:
    """The table as a document of schema `saelab/table/1`; about: what else it says, such as the
    run."""
    return {"schema": SCHEMA, "name": one.name, **about, "rows": one.rows}


def within(name: str, document: Mapping[str, Any]) -> Iterator[Table]:
    """The tables that a document holds, wherever: its lists of objects, and its objects of objects,
    whose keys are the column `of`.

    >>> [one.name for one in within("circuits", {"heads": [{"layer": 0}], "seed": 1})]
    ['circuits-heads']
    """
    for key, value in document.items():
        inner = f"{name}-{key}".replace("_", "-")
        if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value):
            yield table(inner, value)
        elif isinstance(value, Mapping) and value:
            if all(isinstance(row, Mapping) for row in value.values()):
                yield table(inner, [{"of": of, **row} for of, row in value.items()])
            else:
                yield from within(inner, value)
