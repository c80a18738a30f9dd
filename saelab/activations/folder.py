"""The folder of a cache in the making: a shard counts once a line names it.

Shapes: C contexts, T positions, D width.
"""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

from saelab import digests, ranks
from saelab.activations import disk, lines, manifest, resuming
from saelab.activations.filling import Filled
from saelab.activations.moments import COUNTED, Room, add, add_contexts
from saelab.activations.plan import PACKINGS, SCHEMAS, Plan
from saelab.activations.source import SPLITS, Piece, Resume, Source, all_but_first, is_here
from saelab.activations.stored import Stored
from saelab.errors import FailedRun, UsageError
from saelab.files import sweep, write_atomic, write_json


class Made(NamedTuple):
    """A shard that this rank has computed."""

    number: int
    """which one"""
    filled: Filled
    """its contexts, arrays and moments"""


class Folder:
    """Shards of arrays on their way into a folder and its manifest; it knows nothing of where they
    come from. Raises UsageError if the folder holds anything but a cache of this plan."""

    def __init__(self, source: Source, out: Path) -> None:
        self.plan, self.out = source.plan, out
        path = out / "manifest.json"
        manifest.check_place(out)
        self.manifest = manifest.written(out) if path.is_file() else self._empty()
        held = Plan.read(self.manifest)
        if is_here(source):  # its contexts are compared, not where it lies
            held = replace(held, text=self.plan.text)
        if differing := self.plan.differing(held):
            raise UsageError(
                f"{out} holds a cache of other settings (asked / held): {differing}; "
                "choose another --out"
            )
        if not (self.manifest["complete"] or "shard_lines" in self.manifest):
            raise UsageError(
                f"{out} was begun by an older version, which wrote another form: finish it with "
                "that, or choose another --out"
            )
        self.n_held = len(self.manifest["shards"])
        self.moments: dict[str, Tensor] = {}

    def _empty(self) -> dict[str, Any]:
        return {
            "schema": SCHEMAS[self.plan.masked],
            "model": self.plan.model,
            "settings": self.plan.settings(),
            "hooks": self.plan.hooks,
            "packing": PACKINGS[self.plan.pack],
            "split_rule": self.plan.split_rule,
            "shards": [],
            "shard_lines": None,
            "moments": None,
            "documents": None,
            "complete": False,
        }

    def prepare(self) -> None:
        """Remove what a killed write left behind: a torn line, and files of its names that no line
        mentions. Raises UsageError where the disk cannot hold the rest."""
        lines.cut(self.out, lines.read(self.out).n_bytes)
        entries = [*self.manifest["shards"], self.manifest["moments"]]
        kept = {entry["file"] for entry in entries if entry}
        sweep(self.out)
        for path in self.out.iterdir():
            if manifest.SHARD.fullmatch(path.name) and path.name not in kept:
                path.unlink()
        held = sum(shard["bytes"] for shard in self.manifest["shards"])
        disk.require(self.out, self.plan.needed_bytes - held)

    def recount(self, device: str = "cpu") -> None:
        """Read the moments of the shards that are there: those that were written, and those of the
        shards behind them, which are made again where they were made before."""
        if entry := self.manifest["moments"]:
            self.moments = load_file(digests.check(self.out, entry, manifest.REMEDY))
        for shard in self.manifest["shards"][lines.read(self.out).n_counted :]:
            sums: dict[str, Tensor] = {}
            with safe_open(digests.check(self.out, shard, manifest.REMEDY), "pt") as file:
                mask_CT = self._mask(file)
                for name in self.plan.hooks:
                    for first in range(0, shard["contexts"], COUNTED):
                        part = slice(first, first + COUNTED)
                        acts = Stored.read(file, name, part).to(device)
                        add_contexts(sums, name, acts, mask_CT[part], Room())
            add(self.moments, f"{shard['split']}/", sums)
        self._end_group()

    def _mask(self, file: Any) -> Tensor:
        if self.plan.masked:
            return file.get_tensor("counted")
        return all_but_first(file.get_tensor("tokens"))

    def holds(self, number: int, shard: Piece) -> bool:
        """Whether an earlier run wrote this shard. Raises FailedRun if it is damaged, or was made
        of other contexts than these."""
        if number >= self.n_held:
            return False
        if not self.is_of(number, shard):
            path = self.out / self.manifest["shards"][number]["file"]
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

    def add(self, mine: Made | None, n_shards: int, resume: Resume | None = None) -> None:
        """Write the shard that this rank has made, if any; then rank 0 names those of all ranks, up
        to n_shards in all, and what the next one is read from. Every rank is to call it."""
        if n_shards <= self.n_held:
            return
        for entry, sums in self._of_all_ranks(mine):
            self._name(entry, sums)
        if resume is not None and ranks.rank() == 0:
            resuming.save(self.out, n_shards, resume)

    def _of_all_ranks(self, mine: Made | None) -> Iterator[tuple[dict[str, Any], dict]]:
        """Entry and moments of the shards of all ranks, in order, at rank 0."""
        made = None if mine is None else (self._save_shard(mine), mine.filled.moments)
        if ranks.world() > 1:
            every = ranks.told_to_first(_packed(*made) if made else b"")
            yield from (_unpacked(told) for told in every if told)
        elif made:
            yield made

    def _save_shard(self, made: Made) -> dict[str, Any]:
        """Write a shard; its entry."""
        shard = made.filled.shard
        tensors = self._columns(shard)
        for name, stored in made.filled.arrays.items():
            tensors |= stored.tensors(name)
        entry = self._save(lines.shard_name(made.number), tensors)
        entry |= {"split": shard.split, "contexts": len(shard.tokens)}
        return entry | ({"counted": int(shard.counted.sum())} if self.plan.masked else {})

    def _name(self, entry: dict[str, Any], sums: dict[str, Tensor]) -> None:
        """Let a shard that is there count."""
        if not self.manifest["shards"]:
            self._save_manifest()
        self._add_line("shard", entry)
        self.manifest["shards"].append(entry)
        add(self.moments, f"{entry['split']}/", sums)
        self._end_group()

    def _end_group(self) -> None:
        """Write the moments where they are due, unless they are there."""
        n_shards = len(self.manifest["shards"])
        if n_shards and n_shards % self.plan.moments_every == 0:
            self._save_moments()

    def _save_moments(self) -> None:
        """Write the moments of all shards unless they are there, name them, and remove those that
        they take the place of."""
        old, name = self.manifest["moments"], lines.moments_name(len(self.manifest["shards"]))
        if old and old["file"] == name:
            return
        self.manifest["moments"] = self._save(name, self.moments)
        self._add_line("moments", self.manifest["moments"])
        if old:
            (self.out / old["file"]).unlink(missing_ok=True)

    def _columns(self, shard: Piece) -> dict[str, Tensor]:
        """What a shard's file holds beside activations."""
        columns = {"tokens": shard.tokens.int(), "documents": shard.owners.int()}
        return columns | ({"counted": shard.counted} if self.plan.masked else {})

    def _save(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Write a safetensors file; its entry."""
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        with disk.room(self.out / name, size):
            write_atomic(self.out / name, lambda temporary: save_file(tensors, temporary))
        return digests.entry(self.out / name)

    def _add_line(self, kind: str, entry: dict[str, Any]) -> None:
        with disk.room(self.out / lines.FILE, len(json.dumps(entry))):
            lines.add(self.out, kind, entry)

    def _save_json(self, name: str, value: Any) -> dict[str, Any]:
        with disk.room(self.out / name, len(json.dumps(value, indent=1))):
            write_json(self.out / name, value)
        return digests.entry(self.out / name)

    def _save_manifest(self) -> None:
        """Write what does not change with every shard."""
        fields = {name: value for name, value in self.manifest.items() if name != "shards"}
        self._save_json("manifest.json", fields)

    def finish(self, names: list[str], notes: dict[str, Any]) -> None:
        """Write the documents' names and the source's notes, and mark the cache complete. Raises
        UsageError where a split has no context."""
        for split in SPLITS:
            if not any(shard["split"] == split for shard in self.manifest["shards"]):
                which = split.replace("_", "-")
                raise UsageError(
                    f"{self.plan.text} gave no {which} context: use more or longer documents"
                )
        self._save_moments()
        resuming.remove(self.out)
        self.manifest["documents"] = self._save_json("documents.json", names)
        self.manifest["shard_lines"] = digests.entry(self.out / lines.FILE)
        self.manifest |= notes
        self.manifest["complete"] = True
        self._save_manifest()


def _packed(entry: dict[str, Any], sums: dict[str, Tensor]) -> bytes:
    """A shard's entry and moments as one rank tells them to another."""
    told = torch.frombuffer(bytearray(json.dumps(entry).encode()), dtype=torch.uint8)
    return save({"entry": told, **{name: value.cpu() for name, value in sums.items()}})


def _unpacked(told: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    sums = load(told)
    return json.loads(bytes(sums.pop("entry").numpy())), sums


def _has(path: Path, columns: dict[str, Tensor]) -> bool:
    """Whether a shard holds these columns; False for one that cannot be read."""
    try:
        with safe_open(path, "pt") as file:
            return all(torch.equal(file.get_tensor(key), columns[key]) for key in columns)
    except SafetensorError:
        return False
