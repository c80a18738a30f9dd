"""What every verb shares: the options --json and --seed, tables on stdout, progress on stderr."""

import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg
from tyro.constructors import PrimitiveConstructorSpec


def count(text: str) -> int:
    """A number of tokens: 2000000, 500k, 2M or 1.5M."""
    factor = {"k": 10**3, "m": 10**6, "b": 10**9}.get(text[-1:].lower(), 1)
    try:
        return int(float(text[:-1] if factor > 1 else text) * factor)
    except ValueError:
        raise ValueError(f"{text!r} is no number of tokens such as 2000000, 500k or 2M") from None


Count = Annotated[
    int,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda words: count(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    ),
]

# Options whose help says by itself what happens without them.
Runs = Annotated[Positional[tuple[Path, ...]], arg(metavar="[RUN ...]", help_behavior_hint="")]
Folder = Annotated[Path | None, arg(metavar="PATH", help_behavior_hint="")]
Number = Annotated[int | None, arg(metavar="INT", help_behavior_hint="")]


@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    json: bool = False
    """print the result as JSON on stdout"""
    seed: int = 0
    """seed of everything random"""


Place = Annotated[str | None, arg(metavar="MODEL", help_behavior_hint="")]


@dataclass(frozen=True)
class OfRun(Common):
    """Options of every verb that opens runs with their model."""

    model: Place = None
    """bundled, a folder or a hub name: where the run's model lies now (default: where the run
    says)"""


@dataclass(frozen=True)
class OfCache(OfRun):
    """Options of every verb that opens runs with their model and cache."""

    cache: Folder = None
    """folder of an activation cache (default: the one the run was trained on)"""


def document(schema: str, seed: int, **fields: Any) -> dict:
    """A JSON document with the fields every document carries: schema, saelab_version, seed,
    command."""
    from saelab import __version__

    command = " ".join(["saelab", *sys.argv[1:]])
    return {
        "schema": f"saelab/{schema}/1",
        "saelab_version": __version__,
        "seed": seed,
        "command": command,
        **fields,
    }


def cell(field: Mapping[str, Any], style: str = ".4f") -> str:
    """An estimate as a document holds it, for people: `0.1234 [0.1100, 0.1400]`; `-` for None."""
    if field["value"] is None:
        return "-"
    value = format(field["value"], style)
    if field["low"] is None:
        return value
    return f"{value} [{field['low']:{style}}, {field['high']:{style}}]"


def show(result: dict, as_json: bool, text: str) -> None:
    """Print a verb's result: JSON for programs, `text` for people."""
    print(json.dumps(result, indent=1) if as_json else text)


def upto(bar: Any) -> Callable[[int], None]:
    """A callback that moves a tqdm bar to the number it is called with."""

    def move(n: int) -> None:
        bar.update(n - bar.n)

    return move
