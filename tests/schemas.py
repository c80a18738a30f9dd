"""Documents held against the committed schemas, which refer to one another by file name."""

import json
from typing import Any

import jsonschema
from referencing import Registry, Resource

from tests.conftest import ROOT

SCHEMAS = {
    path.name: json.loads(path.read_text()) for path in (ROOT / "saelab" / "schemas").glob("*.json")
}
REGISTRY = Registry().with_resources(
    (name, Resource.from_contents(schema)) for name, schema in SCHEMAS.items()
)


def check(document: Any, name: str) -> None:
    """Raise jsonschema.ValidationError unless the document is what the schema `name` says."""
    schema = SCHEMAS[f"{name}.json"]
    jsonschema.Draft202012Validator(schema, registry=REGISTRY).validate(document)
