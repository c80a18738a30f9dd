"""The shards of a cache, one JSON line each with its own digest, in a file that is appended to.

A line is `{"shard": ENTRY, "sha256": ...}` or, after every so many shards,
`{"moments": ENTRY, "sha256": ...}`: the moments of all shards above it. Whatever a cache already
holds, its next shard costs one line.
"""

import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from saelab import digests
from saelab.errors import FailedRun
from saelab.files import append, meant, read_row

FILE = "shards.jsonl"
REMEDY = "delete the cache and capture again"


class Lines(NamedTuple):
    """What the lines say."""

    shards: list[dict[str, Any]]
    """entry of each, in order"""
    moments: dict[str, Any] | None
    """entry of the last moments that were written"""
    n_counted: int
    """how many shards are in them"""
    n_bytes: int
    """length of the lines that count: without the last one, where that is torn"""


def shard_name(number: int) -> str:
    """The file of a shard."""
    return f"{number:05d}.safetensors"


def moments_name(n_shards: int) -> str:
    """The file of the moments of the first so many shards."""
    return f"moments-{n_shards:05d}.safetensors"


def read(folder: Path) -> Lines:
    """What the lines of a cache's folder say; nothing where there are none.

    A last line that a killed process left torn is passed over. Raises FailedRun naming file and
    line of any other that is damaged.
    """
    path = folder / FILE
    whole = path.read_bytes() if path.is_file() else b""
    shards: list[dict[str, Any]] = []
    moments, n_counted, n_bytes = None, 0, 0
    lines = whole.splitlines(keepends=True)
    for number, line in enumerate(lines, 1):
        where = f"line {number} of {path}"
        try:
            kind, entry = _parsed(line, len(shards), where)
        except FailedRun:
            if number < len(lines):
                raise
            break
        if kind == "shard":
            shards.append(entry)
        else:
            moments, n_counted = entry, len(shards)
        n_bytes += len(line)
    return Lines(shards, moments, n_counted, n_bytes)


def _parsed(line: bytes, n_shards: int, where: str) -> tuple[str, dict[str, Any]]:
    """Kind and entry of a line after that of so many shards. Raises FailedRun for a damaged one."""
    if not line.endswith(b"\n"):
        raise FailedRun(f"{where} is cut; {REMEDY}")
    row = read_row(line, where, REMEDY)
    if digests.is_right(row) is not True:
        raise FailedRun(f"{where} was altered: it has not the SHA-256 that it holds; {REMEDY}")
    with meant(Path(where), REMEDY):
        kind = next(iter(row))
        names = {"shard": shard_name(n_shards), "moments": moments_name(n_shards)}
        if row[kind]["file"] != names[kind]:
            raise ValueError(f"it names {row[kind]['file']}, {names[kind]} is due")
    return kind, row[kind]


def add(folder: Path, kind: str, entry: dict[str, Any]) -> None:
    """Add the line of a file that lies there whole."""
    line = json.dumps(digests.sealed({kind: entry}), separators=(",", ":"))
    append(folder / FILE, line.encode() + b"\n")


def cut(folder: Path, n_bytes: int) -> None:
    """Take away what follows the lines that count."""
    path = folder / FILE
    if path.is_file() and path.stat().st_size != n_bytes:
        os.truncate(path, n_bytes)
