"""An SAE's error and its two parts as an activation cache, so that `saelab train` can train SAEs on
them.

Shapes: C contexts, T positions, N tokens, D width.
"""

import copy
import shutil
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from saelab.activations.cache import CHUNK, Cache, sha256
from saelab.analysis.dark_matter.decomposition import Map, split, targets
from saelab.analysis.dark_matter.linear import Sums, solve
from saelab.errors import UsageError
from saelab.files import write_atomic, write_json
from saelab.sae import SAE

PARTS = ("error", "error.linear", "error.nonlinear")


@torch.no_grad()
def write_errors(
    sae: SAE,
    cache: Cache,
    out: Path | str,
    n_tokens: int = 500_000,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> Path:
    """Write a cache of x - x_hat and of its parts into folder `out`; returns the folder.

    Its hooks are HOOK.error, HOOK.error.linear and HOOK.error.nonlinear for the SAE's hook; text,
    splits and shards are those of `cache`; the linear map is fitted on at most n_tokens of its
    training tokens. The manifest comes last, so that a killed write leaves no cache.
    progress(tokens done). Raises UsageError if `out` holds anything, or for too few tokens.
    """
    out, hook = Path(out), cache.resolve(sae.origin.hook)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not an empty folder: choose another for the error cache")
    map = _fit(sae, cache, hook, n_tokens, seed)
    manifest, moments, done = copy.deepcopy(cache.manifest), {}, 0
    names = [f"{hook}.{part}" for part in PARTS]
    for shard in manifest["shards"]:
        tensors = load_file(cache.path / shard["file"])
        arrays = dict(zip(names, _parts(sae, map, tensors[hook]), strict=True))
        _count(moments, shard["split"], arrays)
        kept = {key: tensors[key] for key in ("tokens", "documents")}
        shard |= _save(out / shard["file"], arrays | kept)
        done += tensors["tokens"].numel()
        if progress:
            progress(done)
    entry = manifest["hooks"][hook]
    manifest["hooks"] = {name: {**entry, "aliases": [], "part_of": hook} for name in names}
    manifest["settings"] |= {"hooks": names, "gradients": False}
    manifest["moments"] = _save(out / "moments.safetensors", moments)
    shutil.copyfile(cache.path / manifest["documents"]["file"], out / manifest["documents"]["file"])
    write_json(out / "manifest.json", manifest)
    return out


def _fit(sae: SAE, cache: Cache, hook: str, n_tokens: int, seed: int) -> Map:
    """The error's linear map, from shuffled training tokens."""
    available = min(n_tokens, cache.n_tokens("train"))
    stream, sums = (
        cache.batches(hook, size := min(8192, available), seed),
        Sums(sae.d_model, sae.d_model + 1),
    )
    for _ in range(available // size):
        x_ND = next(stream)
        sums.add(x_ND, targets(x_ND - sae(x_ND)))
    return split(solve(sums))


def _parts(sae: SAE, map: Map, acts_CTD: Tensor) -> list[Tensor]:
    """error, linear and nonlinear [C, T, D] in the cache's dtype; position 0 is filled like any
    other and never read."""
    parts: list[list[Tensor]] = []
    for piece_CTD in acts_CTD.split(CHUNK):
        x_ND = piece_CTD.float().flatten(0, 1)
        error_ND = x_ND - sae(x_ND)
        linear_ND = map.error(x_ND)
        parts.append(
            [
                part.view_as(piece_CTD).to(acts_CTD.dtype)
                for part in (error_ND, linear_ND, error_ND - linear_ND)
            ]
        )
    return [torch.cat(pieces) for pieces in zip(*parts, strict=True)]


def _count(moments: dict[str, Tensor], split: str, arrays: dict[str, Tensor]) -> None:
    """Add a shard's tokens, position 0 excluded, to the split's moments, those of the parts as
    stored."""
    for name, acts_CTD in arrays.items():
        rows_ND = acts_CTD[:, 1:].flatten(0, 1).double()
        new = {
            "n": torch.tensor(float(len(rows_ND)), dtype=torch.float64),
            "sum": rows_ND.sum(0),
            "second": rows_ND.T @ rows_ND,
        }
        for part, value in new.items():
            key = f"{split}/{name}/{part}"
            moments[key] = moments[key] + value if key in moments else value


def _save(path: Path, tensors: dict[str, Tensor]) -> dict:
    write_atomic(path, lambda temporary: save_file(tensors, temporary))
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}
