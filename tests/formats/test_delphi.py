"""delphi's cache of latents holds what a float64 loop over the tokens that count finds, wherever
the files are cut."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from saelab import SAE
from saelab.activations import Cache
from saelab.errors import FailedRun, UsageError
from saelab.formats import delphi
from tests.conftest import HOOK

Firings = dict[tuple[int, int, int], float]


def looped(sae: SAE, cache: Cache, n_contexts: int) -> Firings:
    """(context, position, feature) to value, by float64 and one token at a time."""
    W_enc, b_enc, b_dec = (getattr(sae, name).double() for name in ("W_enc", "b_enc", "b_dec"))
    found: Firings = {}
    chunk = next(cache.contexts(HOOK, "held_out")).part(slice(n_contexts))
    for context, position in chunk.counted.nonzero().tolist():
        pre_F = W_enc @ (chunk.acts[context, position].double() - b_dec) + b_enc
        for feature in pre_F.topk(sae.sparsify.k).indices.tolist():  # type: ignore[union-attr]
            if pre_F[feature] > delphi.SMALLEST:
                found[context, position, feature] = float(pre_F[feature])
    return found


def opened(folder: Path) -> Firings:
    """What lies in the files, read as delphi reads them: by the number in the file's name."""
    found: Firings = {}
    for path in folder.glob("*.safetensors"):
        held = load_file(path)
        for (context, position, feature), value in zip(
            held["locations"].tolist(), held["activations"].tolist(), strict=True
        ):
            found[context, position, feature + int(path.stem.split("_")[0])] = value
    return found


def same(found: Firings, truth: Firings) -> bool:
    return found.keys() == truth.keys() and all(
        abs(found[key] - value) <= 1e-3 * abs(value) + 1e-6 for key, value in truth.items()
    )


@torch.no_grad()
def test_every_pair_is_there_and_no_other(tiny_run: Path, tiny_cache: Path, tmp_path: Path):
    sae, cache = SAE.load(tiny_run), Cache(tiny_cache)
    counted_C = next(cache.contexts(HOOK, "held_out")).counted.sum(1).cumsum(0)
    n_tokens = int(counted_C[4]) + 1  # so that the sixth context is the last
    folder = delphi.write(sae, cache, tmp_path, split="held_out", n_tokens=n_tokens, n_splits=3)
    truth, found = looped(sae, cache, 6), opened(folder / HOOK)
    assert len(truth) > 300 and same(found, truth)
    bad_twins = (
        {(position, context, feature): v for (context, position, feature), v in found.items()},
        {(context, position, feature % 21): v for (context, position, feature), v in found.items()},
        {key: value * 1.01 for key, value in found.items()},
    )
    assert not any(same(bad, truth) for bad in bad_twins)

    names = sorted(path.name for path in (folder / HOOK).iterdir())
    assert names == ["0_20.safetensors", "21_41.safetensors", "42_63.safetensors", "config.json"]
    held = load_file(folder / HOOK / "42_63.safetensors")
    assert held["locations"].dtype == np.uint16 and held["activations"].dtype == np.float16
    tokens = next(cache.contexts(HOOK, "held_out")).tokens[:6]
    assert np.array_equal(held["tokens"], tokens)
    config = json.loads((folder / HOOK / "config.json").read_text())
    assert config["cache_ctx_len"] == tokens.shape[1] and config["n_tokens"] == tokens.numel()


def test_what_it_cannot_hold_is_refused(tiny_run: Path, tiny_cache: Path, tmp_path: Path):
    sae, cache = SAE.load(tiny_run), Cache(tiny_cache)
    narrow = SAE(8, 16, sae.sparsify)
    narrow.origin = sae.origin
    with pytest.raises(UsageError, match=r"reads 8 numbers, .* has 32"):
        delphi.write(narrow, cache, tmp_path / "narrow")
    sae.b_enc.data += 1e5
    with pytest.raises(FailedRun, match="float16, at most 65504"):
        delphi.write(sae, cache, tmp_path / "large")
