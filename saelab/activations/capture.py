"""Capture: run a model over text and write the activations at its hook points into a cache, resumable shard by shard.

Shapes: C contexts, T positions, D width, V vocabulary.
"""

import errno
import json
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab import models
from saelab.activations import text as texts
from saelab.activations.cache import SCHEMA, sha256
from saelab.activations.packing import Packer
from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic, write_json

SHARD_BYTES = 64_000_000
FORWARD = 16  # contexts in one forward pass
DTYPES = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float32": torch.float32}
Progress = Callable[[int], None]


class _Seen(Exception):
    """All hooks have fired: the rest of the forward pass is not needed."""


@dataclass(frozen=True)
class Settings:
    """Everything that decides the bytes of a cache; a folder that holds other settings is not resumed."""

    model: dict[str, str]
    text: str
    text_field: str
    hooks: tuple[str, ...]
    n_tokens: int
    context: int
    gradients: bool
    dtype: str
    shard_contexts: int
    bos: int
    eos: int
    bos_rule: str
    seed: int

    def differing(self, held: dict[str, Any]) -> str:
        """`field: asked / held` for each field that differs from a manifest's settings."""
        asked = json.loads(json.dumps(asdict(self)))
        return ", ".join(f"{k}: {v!r} / {held.get(k)!r}" for k, v in asked.items() if v != held.get(k))


@torch.no_grad()
def activations(model: Any, tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """Activations [C, T, ...] at the hooks; the forward pass ends at the last of them.

    Raises UsageError for a hook that does not fire.
    """
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any) -> None:
        seen[hook.name] = acts.detach()
        if len(seen) == len(hooks):
            raise _Seen

    try:
        model.run_with_hooks(tokens_CT, return_type="logits", fwd_hooks=[(name, keep) for name in hooks])
    except _Seen:
        return {name: seen[name] for name in hooks}
    raise UsageError(f"hooks that never fire in this model: {', '.join(name for name in hooks if name not in seen)}")


def activations_and_gradients(model: Any, tokens_CT: Tensor, hooks: Sequence[str]) -> dict[str, Tensor]:
    """Activations at the hooks and, as NAME.grad, dL/dx for L the context's summed next-token cross-entropy."""
    seen: dict[str, Tensor] = {}

    def keep(acts: Tensor, hook: Any) -> Tensor:
        seen[hook.name] = acts if acts.requires_grad else acts.detach().clone().requires_grad_()
        return seen[hook.name]

    with torch.enable_grad():
        logits = model.run_with_hooks(tokens_CT, return_type="logits", fwd_hooks=[(name, keep) for name in hooks])
        if missing := [name for name in hooks if name not in seen]:
            raise UsageError(f"hooks that never fire in this model: {', '.join(missing)}")
        loss = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), tokens_CT[:, 1:].flatten(), reduction="sum")
        gradients = torch.autograd.grad(loss, [seen[name] for name in hooks])
    found = {name: seen[name].detach() for name in hooks}
    return found | {f"{name}.grad": g for name, g in zip(hooks, gradients, strict=True)}


def settings_for(
    model: Any,
    text: str,
    hooks: Sequence[str],
    n_tokens: int,
    *,
    context: int | None = None,
    gradients: bool = False,
    dtype: str = "float16",
    text_field: str = "text",
    seed: int = 0,
) -> tuple[Settings, dict[str, dict]]:
    """The settings of a capture with canonical hook names, and each hook's shape, width and aliases.

    Raises UsageError for an unknown hook or dtype, a context longer than the model's, or too few tokens.
    """
    if dtype not in DTYPES:
        raise UsageError(f"no dtype {dtype!r}; there are {', '.join(DTYPES)}")
    longest = model.cfg.n_ctx
    context = context or min(longest, 1024)
    if not 2 <= context <= longest:
        raise UsageError(f"context={context} must lie between 2 and the model's {longest}")
    if n_tokens < 2 * context:
        raise UsageError(f"tokens={n_tokens} is less than two contexts of {context}, one for each split")
    names = tuple(dict.fromkeys(models.resolve_hook(model, name) for name in hooks))
    if not names:
        raise UsageError("no hook named: --hook NAME, for example --hook blocks.2.hook_resid_post")
    tokenizer = model.tokenizer
    eos = tokenizer.eos_token_id
    bos = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else eos
    if bos is None or eos is None:
        raise UsageError(f"the tokenizer of {models.identity(model)['name']} has neither a BOS nor an end-of-text token")
    rule = "bos token" if tokenizer.bos_token_id is not None else "end-of-text token, as the tokenizer has no BOS"
    shapes = {name: list(x.shape[2:]) for name, x in activations(model, torch.full((1, 2), bos), names).items()}
    points = models.hook_points(model)
    described = {
        name: {
            "shape": shape,
            "width": int(np.prod(shape)),
            "aliases": sorted(a for a, canonical in points.items() if canonical == name and a != name),
        }
        for name, shape in shapes.items()
    }
    per_context = sum(h["width"] for h in described.values()) * context * DTYPES[dtype].itemsize * (2 if gradients else 1)
    shard = max(FORWARD, SHARD_BYTES // per_context // FORWARD * FORWARD)
    fields = (models.identity(model), text, text_field, names, n_tokens, context, gradients, dtype, shard, bos, eos, rule, seed)
    return Settings(*fields), described


def estimate(model: Any, settings: Settings, hooks: dict[str, dict]) -> dict[str, float]:
    """Bytes on disk, seconds (from one timed forward pass) and peak memory of a capture, without writing anything."""
    tokens_CT = torch.randint(0, model.cfg.d_vocab, (FORWARD, settings.context), generator=torch.Generator().manual_seed(0))
    run = activations_and_gradients if settings.gradients else activations
    run(model, tokens_CT, settings.hooks)
    started = time.perf_counter()
    run(model, tokens_CT, settings.hooks)
    seconds = (time.perf_counter() - started) / tokens_CT.numel() * settings.n_tokens
    bytes_ = needed_bytes(settings, hooks)
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    widest = max(h["width"] for h in hooks.values())
    shard = bytes_ / settings.n_tokens * settings.shard_contexts * settings.context
    memory = weights + 3 * shard + tokens_CT.numel() * 4 * (widest * 16 + (model.cfg.d_vocab if settings.gradients else 0))
    return {"bytes": bytes_, "seconds": seconds, "peak_memory_bytes": memory}


def needed_bytes(settings: Settings, hooks: dict[str, dict]) -> int:
    """Size of the finished cache: activations (and gradients), tokens and document numbers."""
    width = sum(h["width"] for h in hooks.values()) * (2 if settings.gradients else 1)
    moments = sum(h["width"] ** 2 * 8 for h in hooks.values()) * 2
    return settings.n_tokens * (width * DTYPES[settings.dtype].itemsize + 8) + moments


def contexts(model: Any, settings: Settings, names: list[str]) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(split, tokens [T], documents [T]) until the settings' tokens are reached; each document's name is appended to `names`.

    Train and held-out documents are packed apart, so that a context, and a shard, belongs to one split.
    """
    packers = {split: Packer(settings.context, settings.bos, settings.eos) for split in ("train", "held_out")}
    words = texts.words(model.tokenizer) if settings.text == "bundled-mix" else None
    left = -(-settings.n_tokens // settings.context)
    for number, document in enumerate(texts.documents(settings.text, words, settings.text_field, settings.seed)):
        names.append(document.name)
        ids = model.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        split = "held_out" if document.held_out else "train"
        for tokens, owners in packers[split].add(number, ids):
            yield split, tokens, owners
            left -= 1
            if not left:
                return


class _Writer:
    """Gathers contexts into shards and enters them in the manifest; shards that are already there are skipped."""

    def __init__(self, model: Any, settings: Settings, hooks: dict[str, dict], out: Path, progress: Progress | None) -> None:
        self.model, self.settings, self.hooks, self.out, self.progress = model, settings, hooks, out, progress
        self.buffers: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {"train": [], "held_out": []}
        self.number = self.n_tokens = 0
        path = out / "manifest.json"
        self.manifest = json.loads(path.read_text()) if path.is_file() else self._empty()
        if differing := settings.differing(self.manifest["settings"]):
            raise UsageError(f"{out} holds a cache of other settings (asked / held): {differing}; choose another --out")
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
        if self.number > len(self.manifest["shards"]):
            self._write(split, np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows]))
        else:
            self.n_tokens += len(rows) * self.settings.context
            if self.progress:
                self.progress(self.n_tokens)

    def _write(self, split: str, tokens: np.ndarray, owners: np.ndarray) -> None:
        arrays = self._run(torch.from_numpy(tokens))
        self._count(split, arrays)
        arrays["tokens"] = torch.from_numpy(tokens.astype(np.int32))
        arrays["documents"] = torch.from_numpy(owners.astype(np.int32))
        shard = self._save(f"{self.number - 1:05d}.safetensors", arrays)
        self.manifest["shards"].append({**shard, "split": split, "contexts": len(tokens)})
        old = self.manifest["moments"]
        self.manifest["moments"] = self._save(f"moments-{self.number:05d}.safetensors", self.moments)
        write_json(self.out / "manifest.json", self.manifest)
        if old:
            (self.out / old["file"]).unlink(missing_ok=True)

    def _run(self, tokens_CT: Tensor) -> dict[str, Tensor]:
        """Arrays [C, T, D] of a shard in the cache's dtype, heads flattened. Raises FailedRun for what the dtype cannot hold."""
        run = activations_and_gradients if self.settings.gradients else activations
        parts: dict[str, list[Tensor]] = {}
        for piece_CT in tokens_CT.split(FORWARD):
            for name, acts in run(self.model, piece_CT, self.settings.hooks).items():
                stored = acts.flatten(2).to(DTYPES[self.settings.dtype])
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
        """Write a safetensors file atomically; its manifest entry. Raises FailedRun if the disk is full."""
        path = self.out / name
        try:
            write_atomic(path, lambda temporary: save_file(tensors, temporary))
        except Exception as error:
            if getattr(error, "errno", None) in (errno.ENOSPC, errno.EFBIG, errno.EDQUOT) or "os error 2" in str(error):
                size = sum(t.numel() * t.element_size() for t in tensors.values())
                raise FailedRun(f"disk full: {path} needs {size:,} bytes; make room and repeat the command to resume") from None
            raise
        return {"file": name, "bytes": path.stat().st_size, "sha256": sha256(path)}

    def finish(self, names: list[str]) -> None:
        """Flush both splits, write the documents' names and mark the cache complete."""
        for split in self.buffers:
            self.flush(split)
        for split in self.buffers:
            if not any(shard["split"] == split for shard in self.manifest["shards"]):
                which = split.replace("_", "-")
                raise UsageError(f"{self.settings.text} gave no {which} context: use more or longer documents")
        path = self.out / "documents.json"
        write_json(path, names)
        self.manifest["documents"] = {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
        self.manifest["complete"] = True
        write_json(self.out / "manifest.json", self.manifest)


def _overflow(name: str, acts: Tensor, dtype: str) -> str:
    if not bool(torch.isfinite(acts).all()):
        return f"{int((~torch.isfinite(acts)).sum())} of {acts.numel()} activations at {name} are not finite"
    return f"{name} reaches {float(acts.abs().max()):.3g}, more than {dtype} holds: capture with --dtype float32 or bfloat16"


def capture(model: Any, settings: Settings, hooks: dict[str, dict], out: Path | str, progress: Progress | None = None) -> Path:
    """Write (or resume, or find finished) the cache that `settings` describe in folder `out`; returns the folder.

    progress(tokens done) is called after every forward pass. Killed at any point, the same call goes on at the next shard and ends
    with the same bytes. Raises UsageError if `out` holds something else or the disk cannot hold the cache, FailedRun under way.
    """
    out = Path(out)
    if out.exists() and not (out.is_dir() and ((out / "manifest.json").is_file() or _ours(out))):
        raise UsageError(f"{out} exists and is no cache: choose another --out")
    folder = next(p for p in [out, *out.absolute().parents] if p.exists())
    writer = _Writer(model, settings, hooks, out, progress)
    if writer.manifest["complete"]:
        return out
    held = sum(shard["bytes"] for shard in writer.manifest["shards"])
    needed, free = needed_bytes(settings, hooks) - held, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(f"the cache needs {needed:,} more bytes, {folder} has {free:,} free: fewer --tokens, or another --out")
    for leftover in out.glob(".*.tmp"):
        leftover.unlink()
    names: list[str] = []
    for split, tokens, owners in contexts(model, settings, names):
        writer.add(split, tokens, owners)
    writer.finish(names)
    return out


def _ours(folder: Path) -> bool:
    """Whether a folder without a manifest holds only the traces of a capture killed before its first shard was entered."""
    return all(p.name.endswith(".tmp") or p.suffix == ".safetensors" for p in folder.iterdir())
