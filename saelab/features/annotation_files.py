"""Annotations as CSV and JSON, for spreadsheets and for other copies of a run."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from saelab.errors import UsageError
from saelab.features.annotations import Annotation
from saelab.features.edits import SCHEMA

COLUMNS = ("sae", "feature", "label", "note", "starred", "lists")
STARRED = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False, "": False}


def to_csv(sae: str, annotations: Iterable[Annotation]) -> str:
    """A table with a row per feature; lists are separated by `;`.

    to_csv(here.sae, here.all().values())
    """
    written = io.StringIO()
    table = csv.writer(written, lineterminator="\n")
    table.writerow(COLUMNS)
    for one in annotations:
        lists = "; ".join(one.lists)
        table.writerow((sae, one.feature, one.label, one.note, int(one.starred), lists))
    return written.getvalue()


def to_json(sae: str, annotations: Iterable[Annotation]) -> str:
    """A document of schema `saelab/annotations/1`."""
    rows = [{**one._asdict(), "lists": [*one.lists]} for one in annotations]
    document = {"schema": SCHEMA, "sae": sae, "annotations": rows}
    return json.dumps(document, indent=1, ensure_ascii=False)


def read(text: str, sae: str, *, any_sae: bool = False) -> list[Annotation]:
    """What such a text says, CSV or JSON. any_sae: also of another SAE than `sae`.

    Raises UsageError for a text that is neither, a row that cannot be meant, or another SAE.
    """
    text = text.removeprefix("\ufeff")
    rows = list(_json(text) if text.lstrip().startswith("{") else _csv(text))
    theirs = {row["sae"] for row in rows} - {sae}
    if theirs and not any_sae:
        raise UsageError(
            f"these annotations are of another SAE ({min(theirs)[:12] or 'it is not said which'}…, "
            f"this one is {sae[:12]}…): features of one are not those of the other"
        )
    return [_annotation(number, row) for number, row in enumerate(rows, start=1)]


def _csv(text: str) -> Iterator[dict[str, Any]]:
    table = csv.DictReader(io.StringIO(text, newline=""))
    if not {"sae", "feature"} <= set(table.fieldnames or ()):
        heads = ", ".join(table.fieldnames or ())
        raise UsageError(f"no annotations: a CSV has the columns {', '.join(COLUMNS)}, not {heads}")
    for row in table:
        lists = [name.strip() for name in (row.get("lists") or "").split(";")]
        yield {**row, "sae": row["sae"] or "", "lists": [name for name in lists if name]}


def _json(text: str) -> Iterator[dict[str, Any]]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"no annotations: the text is no JSON ({error})") from None
    if document.get("schema") != SCHEMA or not isinstance(document.get("annotations"), list):
        raise UsageError(f"no annotations: the document has not the schema {SCHEMA!r}")
    for row in document["annotations"]:
        if not isinstance(row, dict):
            raise UsageError(f"no annotations: {json.dumps(row)[:80]} is none")
        yield {**row, "sae": str(document.get("sae") or "")}


def _annotation(number: int, row: Mapping[str, Any]) -> Annotation:
    """A row as an annotation. Raises UsageError naming one that cannot be meant."""
    feature, starred = str(row.get("feature")), str(row.get("starred") or "").strip().lower()
    lists = row.get("lists") or []
    if not (feature.isascii() and feature.isdigit() and len(feature) < 10):
        raise UsageError(f"row {number} of the annotations: {feature[:40]!r} is no feature")
    if starred not in STARRED or not isinstance(lists, list):
        raise UsageError(f"row {number} of the annotations: starred is 0 or 1, lists are names")
    label, note = (str(row.get(field) or "") for field in ("label", "note"))
    return Annotation(int(feature), label, note, STARRED[starred], tuple(map(str, lists)))
