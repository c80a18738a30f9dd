"""The manifest of a cache, and the lines beside it that name its shards: read and checked."""

import hashlib
import re
from pathlib import Path
from typing import Any

from saelab import digests
from saelab.activations import lines
from saelab.activations.lines import REMEDY
from saelab.activations.plan import OLD_SCHEMAS, SCHEMAS, Plan
from saelab.activations.source import SPLITS
from saelab.errors import FailedRun, UsageError
from saelab.files import is_trace, meant, read_object
from saelab.origin import Identity
from saelab.ranges import Count, OrNone, fits

FIELDS = ("model", "settings", "hooks", "moments", "documents", "complete")
SHARD = re.compile(r"(moments-)?\d{5,}\.safetensors")


def check_place(out: Path) -> None:
    """Raise UsageError if a cache cannot go to `out`: it is no folder, or one that holds something
    else than a cache or the traces of a capture killed before its first shard was entered."""
    if not out.exists():
        return
    if out.is_dir() and (out / "manifest.json").is_file():
        return
    if out.is_dir() and all(SHARD.fullmatch(p.name) or is_trace(p.name) for p in out.iterdir()):
        return
    raise UsageError(f"{out} exists and is no cache: choose another --out")


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
    with meant(folder / "manifest.json", REMEDY):
        for entry in entries(manifest):
            digests.check_length(folder, entry, REMEDY)
    return manifest


def check_fields(manifest: dict[str, Any]) -> None:
    """Raise an error for fields that say nothing that can be meant."""
    Plan.read(manifest)
    Identity.from_dict(manifest["model"])
    for shard in manifest["shards"]:
        counts = (shard["contexts"], shard.get("counted", 0))
        if shard["split"] not in SPLITS or not all(fits(OrNone, count) for count in counts):
            raise ValueError(f"{shard['file']} is no shard of {' or '.join(SPLITS)}: {shard}")
    for name, hook in manifest["hooks"].items():
        if not fits(Count, hook["width"]) or not fits(list, hook["aliases"]):
            raise ValueError(f"{name} is no hook: {hook}")


def written(folder: Path) -> dict[str, Any]:
    """The manifest of a cache that may be unfinished, its files unseen. Raises UsageError if the
    folder holds no cache of a version that is known, FailedRun for a damaged manifest."""
    if not (folder / "manifest.json").is_file():
        raise UsageError(
            f"{folder} is no activation cache: it has no manifest.json; make one with "
            "`saelab capture`"
        )
    manifest = read_object(folder / "manifest.json")
    known = [*OLD_SCHEMAS, *SCHEMAS.values()]
    if manifest.get("schema") not in known:
        raise UsageError(
            f"{folder} has schema {manifest.get('schema')!r}, this version reads {', '.join(known)}"
        )
    of_shards = "shards" if manifest["schema"] in OLD_SCHEMAS else "shard_lines"
    if lacking := [name for name in (*FIELDS, of_shards) if name not in manifest]:
        raise FailedRun(f"{folder / 'manifest.json'} lacks {', '.join(lacking)}; {REMEDY}")
    if of_shards == "shard_lines":
        manifest |= _of_lines(folder, manifest)
    with meant(folder / "manifest.json", REMEDY):
        check_fields(manifest)
    return manifest


def _of_lines(folder: Path, manifest: dict[str, Any]) -> dict[str, Any]:
    """The fields `shards`, and of an unfinished cache `moments`, as the lines beside the manifest
    say."""
    if manifest["complete"]:
        with meant(folder / "manifest.json", REMEDY):
            digests.check(folder, manifest["shard_lines"], REMEDY)
    said = lines.read(folder)
    moments = manifest["moments"] if manifest["complete"] else said.moments
    return {"shards": said.shards, "moments": moments}


def entries(manifest: dict[str, Any]) -> list[dict]:
    """The entries of all files that are there so far."""
    every = [manifest.get("shard_lines"), *manifest["shards"]]
    every += [manifest["moments"], manifest["documents"]]
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
