"""Capture: run a model over text and write the activations at its hook points into a cache,
resumable shard by shard."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from saelab.activations import text as texts
from saelab.activations.packing import Packer
from saelab.activations.settings import Settings, estimate, needed_bytes, settings_for
from saelab.activations.writer import OURS, Progress, Writer
from saelab.errors import UsageError

__all__ = ["Settings", "capture", "contexts", "estimate", "settings_for"]


def contexts(
    model: Any, settings: Settings, names: list[str]
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(split, tokens [T], documents [T]) until the settings' tokens are reached; each document's
    name is appended to `names`.

    Train and held-out documents are packed apart, so that a context, and a shard, belongs to one
    split. The last place is kept for a split that has nothing yet, however far in the text its
    first document lies.
    """
    packers = {
        split: Packer(settings.context, settings.bos, settings.eos)
        for split in ("train", "held_out")
    }
    words = texts.words(model.tokenizer) if settings.text == "bundled-mix" else None
    left, filled = -(-settings.n_tokens // settings.context), set()
    for number, document in enumerate(
        texts.documents(settings.text, words, settings.text_field, settings.seed)
    ):
        names.append(document.name)
        split = "held_out" if document.held_out else "train"
        if left == 1 and filled == {split}:
            continue
        ids = model.tokenizer(document.text, add_special_tokens=False, verbose=False)["input_ids"]
        for tokens, owners in packers[split].add(number, ids):
            if left == 1 and filled == {split}:
                break
            yield split, tokens, owners
            filled.add(split)
            left -= 1
            if not left:
                return


def capture(
    model: Any,
    settings: Settings,
    hooks: dict[str, dict],
    out: Path | str,
    progress: Progress | None = None,
) -> Path:
    """Write (or resume, or find finished) the cache that `settings` describe in folder `out`;
    returns the folder.

    progress(tokens done) is called after every forward pass. Killed at any point, the same call
    goes on at the next shard and ends with the same bytes. Where the text is shorter than asked,
    the cache is. Raises UsageError if `out` holds something else, the text is wrong or the disk
    cannot hold the cache, FailedRun under way.
    """
    out = Path(out)
    if out.exists() and not (
        out.is_dir() and ((out / "manifest.json").is_file() or _leftovers(out))
    ):
        raise UsageError(f"{out} exists and is no cache: choose another --out")
    folder = next(p for p in [out, *out.absolute().parents] if p.exists())
    writer = Writer(model, settings, hooks, out, progress)
    if writer.manifest["complete"]:
        return out
    writer.clear()
    held = sum(shard["bytes"] for shard in writer.manifest["shards"])
    needed, free = needed_bytes(settings, hooks) - held, shutil.disk_usage(folder).free
    if needed > free:
        raise UsageError(
            f"the cache needs {needed:,} more bytes, {folder} has {free:,} free: fewer --tokens, or another --out"
        )
    names: list[str] = []
    for split, tokens, owners in contexts(model, settings, names):
        writer.add(split, tokens, owners)
    writer.finish(names)
    return out


def _leftovers(folder: Path) -> bool:
    """Whether a folder without a manifest holds only the traces of a capture killed before its
    first shard was entered."""
    return all(OURS.fullmatch(path.name) for path in folder.iterdir())
