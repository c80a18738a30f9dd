"""What every verb shares: the options --json and --seed, tables on stdout, progress on stderr."""

import json
import sys
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    json: bool = False
    """print the result as JSON on stdout"""
    seed: int = 0
    """seed of everything random"""


def document(schema: str, seed: int, **fields: Any) -> dict:
    """A JSON document with the fields every document carries: schema, saelab_version, seed, command."""
    from importlib.metadata import version

    command = " ".join(["saelab", *sys.argv[1:]])
    return {
        "schema": f"saelab/{schema}/1",
        "saelab_version": version("saelab"),
        "seed": seed,
        "command": command,
        **fields,
    }


def show(result: dict, as_json: bool, text: str) -> None:
    """Print a verb's result: JSON for programs, `text` for people."""
    print(json.dumps(result, indent=1) if as_json else text)
