"""The manifest of a finished cache: read and checked."""

from pathlib import Path
from typing import Any

from saelab import digests
from saelab.activations.plan import SCHEMAS
from saelab.errors import UsageError
from saelab.files import read_json

REMEDY = "delete the cache and capture again"


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the cache in a folder, all of whose files are there at their length.

    Raises UsageError if the folder holds no cache or an unfinished one, FailedRun naming a file
    that is missing or cut short.
    """
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder} is no activation cache: it has no manifest.json; make one with "
            "`saelab capture`"
        )
    manifest = read_json(folder / "manifest.json")
    if manifest.get("schema") not in SCHEMAS.values():
        raise UsageError(
            f"{folder} has schema {manifest.get('schema')!r}, this version reads "
            f"{' and '.join(SCHEMAS.values())}"
        )
    if not manifest["complete"]:
        raise UsageError(
            f"{folder} is unfinished: repeat its `saelab capture` command to resume it"
        )
    for entry in entries(manifest):
        digests.check_length(folder, entry, REMEDY)
    return manifest


def entries(manifest: dict[str, Any]) -> list[dict]:
    """The entries of all files."""
    return [*manifest["shards"], manifest["moments"], manifest["documents"]]
