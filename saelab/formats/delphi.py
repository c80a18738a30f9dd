"""delphi's cache of latents, from which its explainers and scorers work without the SAE.

`latents/HOOK/START_END.safetensors` for ranges of features, END included, and `config.json`.
Shapes: C contexts, T positions, N pairs.
"""

import contextlib
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from saelab.activations import Cache
from saelab.activations.records import Contexts
from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic
from saelab.sae import SAE

N_SPLITS = 5  # as delphi cuts
SMALLEST = 1e-5  # |value| that it keeps must be above this
LARGEST = float(np.finfo(np.float16).max)
LATENTS, CONFIG = "latents", "config.json"
# One pair on its way to its file: (context, position, feature less the file's first), value.
PAIR = np.dtype([("location", "<u4", 3), ("value", "<f2")])


class _Pairs(NamedTuple):
    """What fired in a chunk of contexts."""

    context: NDArray
    """[N] number of the context"""
    position: NDArray
    """[N]"""
    feature: NDArray
    """[N]"""
    value: NDArray
    """[N] float32"""


@torch.no_grad()
def write(
    sae: SAE,
    cache: Cache,
    out: Path | str,
    *,
    split: str = "train",
    n_tokens: int | None = None,
    n_splits: int = N_SPLITS,
    progress: Callable[[int], object] | None = None,
) -> Path:
    """Write what an SAE's features are on a cache's tokens as delphi's `LatentDataset` reads it;
    returns the folder `latents` that it is given.

    The cache is read once, a chunk of contexts at a time, and pairs go to the disk at once: memory
    holds a chunk's, later those of one of n_splits files (14 bytes a pair, and as much again while
    that is written), and the tokens. n_tokens: stop after the context that reaches that many
    counted tokens (None: all). Positions that do not count have no pairs. Raises UsageError for an
    SAE of another width and a split without tokens, FailedRun for a value that float16 does not
    hold.

    >>> delphi.write(sae, cache, "for-delphi")
    """
    sae, hook, out = sae.frozen(), sae.origin.hook, Path(out)
    if cache.width(hook) != sae.d_model:
        raise UsageError(
            f"{sae!r} reads {sae.d_model} numbers, {hook} of {cache.path} has {cache.width(hook)}"
        )
    folder = out / LATENTS / hook
    folder.mkdir(parents=True, exist_ok=True)
    edges = np.linspace(0, sae.n_features, n_splits + 1).astype(np.int64)
    with contextlib.ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=out)))
        spools = [stack.enter_context((scratch / str(n)).open("w+b")) for n in range(n_splits)]
        tokens_CT = _spool(sae, cache, split, n_tokens, edges, spools, progress)
        for spool, start, end in zip(spools, edges[:-1], edges[1:], strict=True):
            if end > start:  # fewer features than files
                _write_range(folder / f"{start}_{end - 1}.safetensors", spool, tokens_CT)
    text = json.dumps(_config(sae, cache, tokens_CT, split, n_splits), indent=1)
    write_atomic(folder / CONFIG, lambda temporary: temporary.write_text(text))
    return out / LATENTS


def _spool(
    sae: SAE,
    cache: Cache,
    split: str,
    n_tokens: int | None,
    edges: NDArray,
    spools: Sequence[BinaryIO],
    progress: Callable[[int], object] | None,
) -> NDArray:
    """Every pair to the spool of its range of features; the tokens [C, T] that were read."""
    tokens, n_contexts, n_read = [], 0, 0
    for chunk in cache.contexts(sae.origin.hook, split):
        if n_tokens is not None:
            counts_C = chunk.counted.sum(1).cumsum(0)
            reaching = int(torch.searchsorted(counts_C, n_tokens - n_read)) + 1
            chunk = chunk.part(slice(reaching))
        pairs = _pairs(sae, chunk, n_contexts)
        in_range_N = np.searchsorted(edges, pairs.feature, side="right") - 1
        for number, spool in enumerate(spools):
            kept = np.flatnonzero(in_range_N == number)
            _records(pairs, kept, edges[number]).tofile(spool)
        tokens.append(chunk.tokens.numpy().astype(np.int32))
        n_contexts += len(chunk.tokens)
        n_read += int(chunk.counted.sum())
        if progress is not None:
            progress(n_read)
        if n_tokens is not None and n_read >= n_tokens:
            break
    if not n_read:
        raise UsageError(f"{cache.path} has no {split} tokens: capture more")
    return np.concatenate(tokens)


def _pairs(sae: SAE, chunk: Contexts, first_context: int) -> _Pairs:
    code = sae.encode(chunk.acts.to(sae.W_enc)).to("cpu")
    where_N, value_N = code.tokens.numpy(), code.values.float().numpy()
    counted_N = chunk.counted.reshape(-1).numpy()[where_N]
    kept = np.flatnonzero(counted_N & (np.abs(value_N) > SMALLEST))
    value_N = value_N[kept]
    largest = np.abs(value_N).max(initial=0)
    if not largest <= LARGEST:
        raise FailedRun(
            f"a feature reaches {largest:.6g}, and delphi's files hold float16, at most {LARGEST}"
        )
    length = chunk.tokens.shape[1]
    where_N = where_N[kept]
    feature_N = code.features.numpy()[kept]
    return _Pairs(first_context + where_N // length, where_N % length, feature_N, value_N)


def _records(pairs: _Pairs, kept: NDArray, first_feature: int) -> NDArray:
    records = np.empty(len(kept), PAIR)
    columns = (pairs.context, pairs.position, pairs.feature - first_feature)
    for number, column in enumerate(columns):
        records["location"][:, number] = column[kept]
    records["value"] = pairs.value[kept]
    return records


def _write_range(path: Path, spool: BinaryIO, tokens_CT: NDArray) -> None:
    """One file. Locations are uint16 where they all fit, as delphi writes them."""
    spool.seek(0)
    records = np.fromfile(spool, PAIR)
    locations_N3 = records["location"]
    short = locations_N3.max(initial=0) < 2**16
    tensors = {
        "locations": locations_N3.astype(np.uint16 if short else np.uint32),
        "activations": np.ascontiguousarray(records["value"]),
        "tokens": tokens_CT,
    }
    write_atomic(path, lambda temporary: save_file(tensors, temporary))


def _config(
    sae: SAE, cache: Cache, tokens_CT: NDArray, split: str, n_splits: int
) -> dict[str, Any]:
    """The fields of delphi's CacheConfig, and its `model_name`, by which the tokenizer is found."""
    model = sae.origin.model or cache.identity
    return {
        "dataset_repo": cache.plan.text,
        "dataset_split": split,
        "dataset_name": "",
        "dataset_column": cache.plan.text_field or "text",
        "batch_size": 32,
        "cache_ctx_len": tokens_CT.shape[1],
        "n_tokens": tokens_CT.size,
        "n_splits": n_splits,
        "model_name": model.name,
    }
