"""Writing a cache: contexts are gathered into shards, and a shard counts once the manifest names
it.

Shapes: C contexts, T positions, N tokens, D width.
"""

import json
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import digests
from saelab.activations import disk, manifest
from saelab.activations.filling import empty, fill
from saelab.activations.moments import of_rows
from saelab.activations.plan import PACKINGS, SCHEMAS, Plan
from saelab.activations.source import SPLITS, Piece, Progress, Source, check_counted, shards
from saelab.activations.stored import Stored
from saelab.errors import FailedRun, UsageError
from saelab.files import read_json, sweep, tidy, write_atomic, write_json
from saelab.locks import only_writer

COUNTED = 16  # contexts whose moments are added up at once


def write(source: Source, out: Path | str, progress: Progress | None = None) -> Path:
    """Write (or resume, or find finished) the cache of a source in folder `out`; the folder.

    progress(positions done) is called after every part that the source gives. Killed at any point,
    the same call goes on at the next shard and ends with the same bytes. Where the source ends
    early, the cache is shorter. Raises UsageError if `out` holds something else, the source is
    wrong or the disk cannot hold the cache, FailedRun under way.
    """
    out = Path(out)
    if not _complete(out):
        with only_writer(out):
            writer = Writer(source, out)
            if not writer.manifest["complete"]:
                _write(writer, source, progress)
                return out
    tidy(out)
    _check_unchanged(Writer(source, out), source)
    return out


def _complete(out: Path) -> bool:
    path = out / "manifest.json"
    return path.is_file() and bool(read_json(path).get("complete"))


def _check_unchanged(writer: "Writer", source: Source) -> None:
    """Raise UsageError where a source would fill a finished cache with other contexts by now; what
    comes over a network is taken by its name."""
    if not _is_here(source):
        return
    pieces = enumerate(shards(source.pieces(), source.plan.shard_contexts))
    same = [number < writer.n_held and writer.is_of(number, shard) for number, shard in pieces]
    if len(same) != writer.n_held or not all(same):
        raise UsageError(
            f"{writer.out} holds another text: {source.plan.text} is not what it was when it was "
            "made; choose another --out"
        )


def _is_here(source: Source) -> bool:
    """Whether reading the source again needs no network."""
    return getattr(source, "is_here", True)


def _write(writer: "Writer", source: Source, progress: Progress | None) -> None:
    writer.prepare()
    n_positions = 0
    with ThreadPoolExecutor(1) as background:  # one shard is written while the next is computed
        pending: list[Future] = []
        for number, shard in enumerate(shards(source.pieces(), source.plan.shard_contexts)):
            check_counted(source.plan, shard)
            if writer.holds(number, shard):
                n_positions = _tell(progress, n_positions + shard.tokens.numel())
                continue
            arrays = {name: empty(source.plan, name, shard) for name in source.plan.arrays}
            for n_contexts in fill(arrays, source, shard):
                n_positions = _tell(progress, n_positions + n_contexts * shard.tokens.shape[1])
            _wait(pending)  # the moments that it writes are added to next
            writer.count(shard, arrays)
            pending.append(background.submit(writer.add, number, shard, arrays))
        _wait(pending)
    writer.finish(source.names, source.notes)


def _wait(pending: list[Future]) -> None:
    """Wait for what is being written; what went wrong there is raised here."""
    while pending:
        pending.pop().result()


def _tell(progress: Progress | None, n_positions: int) -> int:
    if progress is not None:
        progress(n_positions)
    return n_positions


class Writer:
    """Shards of arrays on their way into a folder and its manifest; it knows nothing of where they
    come from. Raises UsageError if the folder holds anything but a cache of this plan."""

    def __init__(self, source: Source, out: Path) -> None:
        self.plan, self.out = source.plan, out
        path = out / "manifest.json"
        manifest.check_place(out)
        self.manifest = manifest.written(out) if path.is_file() else self._empty()
        held = Plan.read(self.manifest)
        if _is_here(source):  # its contexts are compared, not where it lies
            held = replace(held, text=self.plan.text)
        if differing := self.plan.differing(held):
            raise UsageError(
                f"{out} holds a cache of other settings (asked / held): {differing}; "
                "choose another --out"
            )
        self.n_held = len(self.manifest["shards"])
        self.moments: dict[str, Tensor] = {}
        if entry := self.manifest["moments"]:
            self.moments = load_file(digests.check(out, entry, manifest.REMEDY))

    def _empty(self) -> dict[str, Any]:
        return {
            "schema": SCHEMAS[self.plan.masked],
            "model": self.plan.model,
            "settings": self.plan.settings(),
            "hooks": self.plan.hooks,
            "packing": PACKINGS[self.plan.pack],
            "split_rule": self.plan.split_rule,
            "shards": [],
            "moments": None,
            "documents": None,
            "complete": False,
        }

    def prepare(self) -> None:
        """Remove what a killed write left behind: files of its names that the manifest does not
        mention. Raises UsageError where the disk cannot hold the rest."""
        entries = [*self.manifest["shards"], self.manifest["moments"]]
        kept = {entry["file"] for entry in entries if entry}
        sweep(self.out)
        for path in self.out.iterdir():
            if manifest.SHARD.fullmatch(path.name) and path.name not in kept:
                path.unlink()
        held = sum(shard["bytes"] for shard in self.manifest["shards"])
        disk.require(self.out, self.plan.needed_bytes - held)

    def holds(self, number: int, shard: Piece) -> bool:
        """Whether an earlier run wrote this shard. Raises FailedRun if it is damaged, or was made
        of other contexts than these."""
        if number >= self.n_held:
            return False
        entry = self.manifest["shards"][number]
        path = self.out / entry["file"]
        if not self.is_of(number, shard):
            raise FailedRun(
                f"{self.plan.text} is not what it was when {path} was made: {manifest.REMEDY}"
            )
        return True

    def is_of(self, number: int, shard: Piece) -> bool:
        """Whether the shard of that number was made of these contexts. Raises FailedRun if it is
        damaged."""
        entry = self.manifest["shards"][number]
        path = digests.check_length(self.out, entry, manifest.REMEDY)
        if entry["split"] == shard.split and _has(path, self._columns(shard)):
            return True
        digests.check(self.out, entry, manifest.REMEDY)  # damage is no other text
        return False

    def count(self, shard: Piece, arrays: dict[str, Stored]) -> None:
        """Add a shard's tokens to its split's moments, some contexts at a time, which stay in the
        processor's cache."""
        for name in self.plan.hooks:
            for first in range(0, len(shard.tokens), COUNTED):
                part = slice(first, first + COUNTED)
                new = of_rows(arrays[name][part][shard.counted[part]].float())
                for moment, value in new.items():
                    key = f"{shard.split}/{name}/{moment}"
                    old = self.moments.get(key)
                    self.moments[key] = value if old is None else old.add_(value)

    def add(self, number: int, shard: Piece, arrays: dict[str, Stored]) -> None:
        """Write shard `number` and the moments counted so far, then name both in the manifest."""
        tensors = self._columns(shard)
        for name, stored in arrays.items():
            tensors |= stored.tensors(name)
        entry = self._save(f"{number:05d}.safetensors", tensors)
        entry |= {"split": shard.split, "contexts": len(shard.tokens)}
        if self.plan.masked:
            entry["counted"] = int(shard.counted.sum())
        old = self.manifest["moments"]
        self.manifest["shards"].append(entry)
        self.manifest["moments"] = self._save(f"moments-{number + 1:05d}.safetensors", self.moments)
        self._save_json("manifest.json", self.manifest)
        if old:
            (self.out / old["file"]).unlink(missing_ok=True)

    def _columns(self, shard: Piece) -> dict[str, Tensor]:
        """What a shard's file holds beside activations."""
        columns = {"tokens": shard.tokens.int(), "documents": shard.owners.int()}
        return columns | ({"counted": shard.counted} if self.plan.masked else {})

    def _save(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Write a safetensors file; its manifest entry."""
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        with disk.room(self.out / name, size):
            write_atomic(self.out / name, lambda temporary: save_file(tensors, temporary))
        return digests.entry(self.out / name)

    def _save_json(self, name: str, value: Any) -> dict[str, Any]:
        with disk.room(self.out / name, len(json.dumps(value, indent=1))):
            write_json(self.out / name, value)
        return digests.entry(self.out / name)

    def finish(self, names: list[str], notes: dict[str, Any]) -> None:
        """Write the documents' names and the source's notes, and mark the cache complete. Raises
        UsageError where a split has no context."""
        for split in SPLITS:
            if not any(shard["split"] == split for shard in self.manifest["shards"]):
                which = split.replace("_", "-")
                raise UsageError(
                    f"{self.plan.text} gave no {which} context: use more or longer documents"
                )
        self.manifest["documents"] = self._save_json("documents.json", names)
        self.manifest |= notes
        self.manifest["complete"] = True
        self._save_json("manifest.json", self.manifest)


def _has(path: Path, columns: dict[str, Tensor]) -> bool:
    """Whether a shard holds these columns; False for one that cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return all(torch.equal(file.get_tensor(key), columns[key]) for key in columns)
    except SafetensorError:
        return False
