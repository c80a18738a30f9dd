"""Writing a cache: contexts are gathered into shards, and a shard counts once the manifest names
it.

Shapes: C contexts, T positions, N tokens, D width.
"""

import errno
import json
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab.activations.cache import SCHEMA, sha256
from saelab.activations.settings import DTYPES, Settings
from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic, write_json
from saelab.models import running
from saelab.models.running import contexts_per_pass

OURS = re.compile(r"\d{5}\.safetensors|moments-\d{5}\.safetensors|\..*\.tmp")
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
Progress = Callable[[int], None]


class Writer:
    """Gathers contexts into shards and enters them in the manifest; shards that are already there
    are checked and skipped."""

    def __init__(
        self,
        model: Any,
        settings: Settings,
        hooks: dict[str, dict],
        out: Path,
        progress: Progress | None,
    ) -> None:
        self.model, self.settings, self.hooks, self.out, self.progress = (
            model,
            settings,
            hooks,
            out,
            progress,
        )
        self.buffers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "held_out": []}
        self.number = self.n_tokens = 0
        path = out / "manifest.json"
        self.manifest = json.loads(path.read_text()) if path.is_file() else self._empty()
        if differing := settings.differing(self.manifest["settings"]):
            raise UsageError(
                f"{out} holds a cache of other settings (asked / held): {differing}; choose another --out"
            )
        self.moments: dict[str, Tensor] = {}
        if self.manifest["moments"]:
            self.moments = load_file(out / self.manifest["moments"]["file"])

    def _empty(self) -> dict[str, Any]:
        return {
            "schema": SCHEMA,
            "model": self.settings.model,
            "settings": json.loads(json.dumps(asdict(self.settings))),
            "hooks": self.hooks,
            "packing": "documents joined by the end-of-text token, cut into contexts that start with BOS; splits packed apart",
            "split_rule": "held out: SHA-256 of the path relative to the corpus root, or of the text, is 0 mod 20",
            "shards": [],
            "moments": None,
            "documents": None,
            "complete": False,
        }

    def clear(self) -> None:
        """Remove what a killed capture left behind: files of its names that the manifest does not
        mention."""
        kept = {
            entry["file"] for entry in [*self.manifest["shards"], self.manifest["moments"]] if entry
        }
        for path in self.out.glob("*") if self.out.is_dir() else ():
            if OURS.fullmatch(path.name) and path.name not in kept:
                path.unlink()

    def add(self, split: str, tokens: np.ndarray, owners: np.ndarray) -> None:
        """Add one context; a full buffer becomes a shard."""
        self.buffers[split].append((tokens, owners))
        if len(self.buffers[split]) == self.settings.shard_contexts:
            self.flush(split)

    def flush(self, split: str) -> None:
        """Write the split's buffer as the next shard, unless an earlier run already did."""
        rows, self.buffers[split] = self.buffers[split], []
        if not rows:
            return
        self.number += 1
        tokens_CT, owners_CT = (
            torch.from_numpy(np.stack(part).astype(np.int32)) for part in zip(*rows, strict=True)
        )
        if self.number > len(self.manifest["shards"]):
            self._write(split, tokens_CT, owners_CT)
        else:
            self._check(self.manifest["shards"][self.number - 1], split, tokens_CT, owners_CT)
            self.n_tokens += tokens_CT.numel()
            if self.progress:
                self.progress(self.n_tokens)

    def _check(
        self, entry: dict[str, Any], split: str, tokens_CT: Tensor, owners_CT: Tensor
    ) -> None:
        """Raise FailedRun if a shard of an earlier run is damaged, or was made of other text than
        this run reads."""
        path = self.out / entry["file"]
        if not path.is_file() or path.stat().st_size != entry["bytes"]:
            raise FailedRun(
                f"{entry['file']} of {self.out} is missing or was cut: delete the cache and capture again"
            )
        with safe_open(path, "pt") as file:
            held = [file.get_tensor(key) for key in ("tokens", "documents")]
        if (
            entry["split"] != split
            or entry["contexts"] != len(tokens_CT)
            or not all(map(torch.equal, held, (tokens_CT, owners_CT)))
        ):
            raise FailedRun(
                f"{self.settings.text} is not what it was when {path} was made: delete the cache and capture again"
            )

    def _write(self, split: str, tokens_CT: Tensor, owners_CT: Tensor) -> None:
        arrays = self._run(tokens_CT.long())
        self._count(split, arrays)
        shard = self._save(
            f"{self.number - 1:05d}.safetensors",
            arrays | {"tokens": tokens_CT, "documents": owners_CT},
        )
        self.manifest["shards"].append({**shard, "split": split, "contexts": len(tokens_CT)})
        old = self.manifest["moments"]
        self.manifest["moments"] = self._save(
            f"moments-{self.number:05d}.safetensors", self.moments
        )
        self._save_json("manifest.json", self.manifest)
        if old:
            (self.out / old["file"]).unlink(missing_ok=True)

    def _run(self, tokens_CT: Tensor) -> dict[str, Tensor]:
        """Arrays [C, T, D] of a shard in the cache's dtype, heads flattened. Raises FailedRun for
        what the dtype cannot hold."""
        run = running.gradients if self.settings.gradients else running.read
        parts: dict[str, list[Tensor]] = {}
        for piece_CT in tokens_CT.split(contexts_per_pass(self.model, self.settings.context)):
            for name, acts in run(self.model, piece_CT, self.settings.hooks).items():
                stored = acts.flatten(2).to("cpu", DTYPES[self.settings.dtype])
                if not bool(torch.isfinite(stored).all()):
                    raise FailedRun(_overflow(name, acts, self.settings.dtype))
                parts.setdefault(name, []).append(stored)
            self.n_tokens += piece_CT.numel()
            if self.progress:
                self.progress(self.n_tokens)
        return {name: torch.cat(pieces) for name, pieces in parts.items()}

    def _count(self, split: str, arrays: dict[str, Tensor]) -> None:
        """Add a shard's tokens to the split's moments."""
        for name in self.settings.hooks:
            rows_ND = arrays[name][:, 1:].flatten(0, 1).double()
            new = {
                "n": torch.tensor(float(len(rows_ND)), dtype=torch.float64),
                "sum": rows_ND.sum(0),
                "second": rows_ND.T @ rows_ND,
            }
            for part, value in new.items():
                key = f"{split}/{name}/{part}"
                self.moments[key] = self.moments[key] + value if key in self.moments else value

    def _save(self, name: str, tensors: dict[str, Tensor]) -> dict[str, Any]:
        """Write a safetensors file; its manifest entry."""
        size = sum(t.numel() * t.element_size() for t in tensors.values())
        with _Room(self.out / name, size):
            write_atomic(self.out / name, lambda temporary: save_file(tensors, temporary))
        return self._entry(name)

    def _save_json(self, name: str, value: Any) -> dict[str, Any]:
        with _Room(self.out / name, len(json.dumps(value, indent=1))):
            write_json(self.out / name, value)
        return self._entry(name)

    def _entry(self, name: str) -> dict[str, Any]:
        path = self.out / name
        return {"file": name, "bytes": path.stat().st_size, "sha256": sha256(path)}

    def finish(self, names: list[str]) -> None:
        """Flush both splits, write the documents' names and mark the cache complete."""
        for split in self.buffers:
            self.flush(split)
        for split in self.buffers:
            if not any(shard["split"] == split for shard in self.manifest["shards"]):
                which = split.replace("_", "-")
                raise UsageError(
                    f"{self.settings.text} gave no {which} context: use more or longer documents"
                )
        self.manifest["documents"] = self._save_json("documents.json", names)
        self.manifest["complete"] = True
        self._save_json("manifest.json", self.manifest)


class _Room:
    """Within the block, errors that mean a full disk become a FailedRun that says how much is
    missing."""

    def __init__(self, path: Path, n_bytes: int) -> None:
        self.path, self.n_bytes = path, n_bytes

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: Any, error: BaseException | None, traceback: Any) -> None:
        number = getattr(error, "errno", None)
        if isinstance(error, SafetensorError) and (
            found := re.search(r"os error (\d+)", str(error))
        ):
            number = int(found[1])
        if number in FULL:
            raise FailedRun(
                f"disk full: {self.path} needs {self.n_bytes:,} more bytes; make room and repeat the command to resume"
            ) from None


def _overflow(name: str, acts: Tensor, dtype: str) -> str:
    if not bool(torch.isfinite(acts).all()):
        return f"{int((~torch.isfinite(acts)).sum())} of {acts.numel()} activations at {name} are not finite"
    return f"{name} reaches {float(acts.abs().max()):.3g}, more than {dtype} holds: capture with --dtype float32 or bfloat16"
