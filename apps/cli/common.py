"""What every verb shares: the options --json and --seed, tables on stdout, progress on stderr."""

import json
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

from tyro.conf import Positional, arg
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from saelab.device import chosen
from saelab.errors import UsageError
from saelab.ranges import Bytes, Seed, number

registry = ConstructorRegistry()


@registry.primitive_rule
def whole(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How every verb reads whole numbers: 2000000, 2e6, 500k or 2M."""
    if kind.type is not int:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="N",
        instance_from_str=lambda words: number(words[0]),
        is_instance=lambda value: isinstance(value, int),
        str_from_instance=lambda value: [str(value)],
    )


@registry.primitive_rule
def size(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec | None:
    """How sizes are read: 500MB, 2GB, 1.5TB."""
    if kind.type is not Bytes:
        return None
    return PrimitiveConstructorSpec(
        nargs=1,
        metavar="SIZE",
        instance_from_str=lambda words: Bytes.read(words[0]),
        is_instance=lambda value: isinstance(value, Bytes),
        str_from_instance=lambda value: [str(value)],
    )


# Options that may be left out: without these names tyro writes `{None}|N`.
Runs = Annotated[Positional[tuple[Path, ...]], arg(metavar="[RUN ...]")]
Folder = Annotated[Path | None, arg(metavar="PATH")]
unsaid = arg(metavar="N")


@dataclass(frozen=True)
class Common:
    """Options of every verb."""

    json: bool = False
    """print the result as JSON on stdout"""
    seed: Seed = 0
    """seed of everything random"""


Device = Annotated[str | None, arg(metavar="DEVICE")]
Dtype = Literal["float32", "bfloat16", "float16"] | None


@dataclass(frozen=True)
class OnDevice(Common):
    """Options of every verb that computes."""

    device: Device = None
    """device to compute on, such as cuda:1 (default: cuda where there is one, else cpu)"""

    @property
    def place(self) -> str:
        """That device. Raises UsageError for one that this machine lacks."""
        return chosen(self.device)


@dataclass(frozen=True)
class OfModel(OnDevice):
    """Options of every verb that runs a language model."""

    model_dtype: Dtype = None
    """what the model computes in (default: float32; capture on a GPU: bfloat16; eval and index: as
    the cache was captured)"""


Place = Annotated[str | None, arg(metavar="MODEL")]


@dataclass(frozen=True)
class OfRun(OfModel):
    """Options of every verb that opens runs with their model."""

    model: Place = None
    """bundled, a folder or a hub name: where the run's model lies now (default: where the run
    says)"""


@dataclass(frozen=True)
class OfCache(OfRun):
    """Options of every verb that opens runs with their model and cache."""

    cache: Folder = None
    """folder of an activation cache (default: the one the run was trained on)"""


WRITTEN = ("out", "errors")  # options that name a folder to write


def unwritable(args: Any) -> Iterator[str]:
    """For each folder that a verb is to write and cannot, one sentence."""
    for name in WRITTEN:
        given = getattr(args, name, None)
        if not given:
            continue
        way = [Path(given), *Path(given).parents]
        there = next((place for place in way if place.exists()), Path())
        if not there.is_dir():
            yield f"{name}={given}: {there} is a file, give a folder"
        elif not os.access(there, os.W_OK | os.X_OK):
            yield f"{name}={given}: {there} may not be written, give another folder"


def finished(verb: str, runs: Sequence[Path]) -> list[Path]:
    """The runs without those whose training has not finished, which are named on stderr. Raises
    UsageError if none is named, or none has finished."""
    from saelab.runs import RunFolder

    if not runs:
        raise UsageError(f"no run named: saelab {verb} RUN [RUN ...]")
    unfinished = [folder for folder in runs if RunFolder(folder).is_unfinished()]
    named = ", ".join(map(str, unfinished))
    how = "`saelab train --resume` goes on with it"
    if len(unfinished) == len(runs):
        raise UsageError(f"{named}: the training has not finished; {how}")
    if unfinished:
        print(f"left out, as the training has not finished: {named}; {how}", file=sys.stderr)
    return [folder for folder in runs if folder not in unfinished]


def document(schema: str, seed: int, **fields: Any) -> dict:
    """A JSON document with the fields every document carries: schema, saelab_version, seed,
    command. A number that is not finite, which JSON has no word for, is null."""
    from saelab import __version__

    command = " ".join(["saelab", *sys.argv[1:]])
    return {
        "schema": f"saelab/{schema}/1",
        "saelab_version": __version__,
        "seed": seed,
        "command": command,
        **_finite(fields),
    }


def _finite(value: Any) -> Any:
    """The same with None for every number that is not finite."""
    if isinstance(value, Mapping):
        return {name: _finite(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def told(value: float | None, style: str = ".4f") -> str:
    """A number for people, `-` for None."""
    return "-" if value is None else format(value, style)


def megabytes(size: int) -> str:
    """A number of bytes for people.

    >>> megabytes(1_230_000)
    '1.2 MB'
    """
    if size >= 1e7:
        return f"{size / 1e6:,.0f} MB"
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"


def cell(field: Mapping[str, Any], style: str = ".4f") -> str:
    """An estimate as a document holds it, for people: `0.1234 [0.1100, 0.1400]`; `-` for None."""
    value = told(field["value"], style)
    if field["value"] is None or field["low"] is None:
        return value
    return f"{value} [{field['low']:{style}}, {field['high']:{style}}]"


def keep(path: Path, result: dict) -> None:
    """Write a verb's result into a run; where nobody may, say so on stderr, as it is printed all
    the same."""
    from saelab.files import write_json

    attempt(path, partial(write_json, value=result))


def attempt(path: Path, write: Callable[[Path], None]) -> None:
    """Write a file; where nobody may, say so on stderr."""
    try:
        write(path)
    except OSError as error:
        print(f"{path} could not be written: {error.strerror or error}", file=sys.stderr)


def show(result: dict, as_json: bool, text: str) -> None:
    """Print a verb's result: JSON for programs, with its own digest, `text` for people."""
    from saelab.digests import sealed

    print(json.dumps(sealed(result), indent=1) if as_json else text)
