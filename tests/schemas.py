"""Documents held against the committed schemas, which refer to one another by file name."""

import json
from typing import Any

import jsonschema
from referencing import Registry, Resource

from saelab.evaluation import rows
from tests.conftest import ROOT

SCHEMAS = {
    path.name: json.loads(path.read_text()) for path in (ROOT / "saelab" / "schemas").glob("*.json")
}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)


def check(document: Any, name: str) -> None:
    """Raise jsonschema.ValidationError unless the document is what the schema `name` says and
    holds every metric of the table, which no schema lists."""
    schema = SCHEMAS[f"{name}.json"]
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(document)
    if missing := lacking(document, name):
        raise jsonschema.ValidationError(f"{name} lacks {', '.join(missing)}")


def lacking(document: Any, name: str) -> list[str]:
    """The metrics that a report, or one of several, does not hold."""
    if name == "report":
        every, spliced = _expected(document)
        beside = [*document["references"].values(), *document.get("controls", {}).values()]
        wanted = [(document, every), *((fields, spliced) for fields in beside)]
    elif name == "reports":
        every, _ = _expected({})
        wanted = [(fields, _expected(fields)[0]) for fields in document["runs"]]
        wanted += [(fields, every) for fields in document["seeds"]]
    else:
        wanted = []
    return [key for fields, keys in wanted for key in keys if key not in fields]


def _expected(report: Any) -> tuple[list[str], list[str]]:
    """The metrics of a report, and those of what stands beside the SAE in it."""
    absent = {"prediction"} if "no_losses" in report else set()
    absent |= set() if "output_error" in report else {"output"}  # of models that read no text
    absent |= set() if "class_kl" in report else {"classes"}
    measured = {key: row for key, row in rows.table().items() if row.source not in absent}
    return list(measured), [key for key, row in measured.items() if row.source in rows.SPLICED]
