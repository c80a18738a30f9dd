"""The manifest of a finished cache: read and checked."""

import hashlib
from pathlib import Path
from typing import Any

from saelab import digests
from saelab.activations.plan import SCHEMAS
from saelab.errors import FailedRun, UsageError
from saelab.files import read_object

FIELDS = ("model", "settings", "hooks", "shards", "moments", "documents", "complete")
REMEDY = "delete the cache and capture again"


def read(folder: Path) -> dict[str, Any]:
    """The manifest of the cache in a folder, all of whose files are there at their length.

    Raises UsageError if the folder holds no cache or an unfinished one, FailedRun naming a file
    that is missing or cut short.
    """
    manifest = written(folder)
    if not manifest["complete"]:
        raise UsageError(
            f"{folder} is unfinished: repeat its `saelab capture` command to resume it"
        )
    for entry in entries(manifest):
        digests.check_length(folder, entry, REMEDY)
    return manifest


def written(folder: Path) -> dict[str, Any]:
    """The manifest of a cache that may be unfinished, its files unseen. Raises UsageError if the
    folder holds no cache of a version that is known, FailedRun for a damaged manifest."""
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder} is no activation cache: it has no manifest.json; make one with "
            "`saelab capture`"
        )
    manifest = read_object(folder / "manifest.json")
    if manifest.get("schema") not in SCHEMAS.values():
        raise UsageError(
            f"{folder} has schema {manifest.get('schema')!r}, this version reads "
            f"{' and '.join(SCHEMAS.values())}"
        )
    if lacking := [name for name in FIELDS if name not in manifest]:
        raise FailedRun(f"{folder / 'manifest.json'} lacks {', '.join(lacking)}; {REMEDY}")
    return manifest


def entries(manifest: dict[str, Any]) -> list[dict]:
    """The entries of all files that are there so far."""
    every = [*manifest["shards"], manifest["moments"], manifest["documents"]]
    return [entry for entry in every if entry]


def contents(manifest: dict[str, Any]) -> str:
    """SHA-256 over its shards' own: what a cache holds, wherever it lies and whatever it is called.

    >>> contents(Cache("caches/a").manifest) == contents(Cache("copies/a").manifest)
    True
    """
    shards = (f"{shard['split']} {shard['sha256']}\n" for shard in manifest["shards"])
    return hashlib.sha256("".join(shards).encode()).hexdigest()


def n_tokens(manifest: dict[str, Any], split: str) -> int:
    """Tokens of a split that count: where no mask says which, all but each context's first."""
    per_context = manifest["settings"]["context"] - 1
    return sum(
        shard.get("counted", shard["contexts"] * per_context)
        for shard in manifest["shards"]
        if shard["split"] == split
    )
