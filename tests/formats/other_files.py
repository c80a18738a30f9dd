"""sparsify's and dictionary_learning's files: see `weights.py`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.formats.weights import (
    Array,
    D,
    File,
    K,
    Weights,
    above,
    four,
    linear,
    relu,
    tensors,
    top,
)


def sparsify(at: Path) -> File:
    w = Weights(10, unit=True)
    path = at / "layers.3" / "seed0"
    path.mkdir(parents=True)
    held = {"encoder__weight": w.W_enc, "encoder__bias": w.b_enc, "W_dec": w.W_dec}
    save_file(tensors(**held, b_dec=w.b_dec), path / "sae.safetensors")
    (path / "cfg.json").write_text(json.dumps({"k": K, "d_in": D, "signed": False}))
    (at / "config.json").write_text(json.dumps({"model": "EleutherAI/pythia-160m"}))
    return File(path, lambda x: w.out(top(relu(w.pre(x)), relu(w.pre(x)))))


def sparsify_transcoder(at: Path) -> File:
    w = Weights(11)
    path = at / "layers.3.mlp"
    path.mkdir(parents=True)
    held = {"encoder__weight": w.W_enc, "encoder__bias": w.b_enc, "W_dec": w.W_dec}
    save_file(tensors(**held, b_dec=w.b_dec, W_skip=w.W_skip), path / "sae.safetensors")
    cfg = {"k": K, "d_in": D, "transcode": True, "skip_connection": True, "activation": "topk"}
    (path / "cfg.json").write_text(json.dumps(cfg))

    def function(x: Array) -> tuple[Array, Array]:
        u = relu(w.pre(x, centred=False))
        y, size = w.out(top(u, u))
        return y + w.W_skip.astype(float) @ x, size

    return File(path, function)


def dictionary_learning(at: Path, name: str, held: dict[str, Any], **trainer: Any) -> Path:
    at.mkdir(parents=True, exist_ok=True)
    torch.save(held, at / "ae.pt")
    said = {"trainer": {"dict_class": name, "layer": 3, "lm_name": "gpt2", **trainer}}
    (at / "config.json").write_text(json.dumps(said))
    return at


def dl_relu(at: Path) -> File:
    w = Weights(12)
    path = dictionary_learning(at, "AutoEncoder", linear(w) | tensors(bias=w.b_dec))
    return File(path, lambda x: w.out(relu(w.pre(x))))


def dl_relu_new(at: Path) -> File:
    w = Weights(13)
    path = dictionary_learning(at, "AutoEncoderNew", linear(w) | tensors(decoder__bias=w.b_dec))
    return File(path, lambda x: w.out(relu(w.pre(x, centred=False))))


def dl_topk(at: Path) -> File:
    w = Weights(14)
    held = linear(w) | tensors(b_dec=w.b_dec) | {"k": torch.tensor(K, dtype=torch.int)}
    path = dictionary_learning(at, "AutoEncoderTopK", held | {"threshold": torch.tensor(-1.0)})
    return File(path, lambda x: w.out(top(relu(w.pre(x)), relu(w.pre(x)))))


def dl_batchtopk(at: Path) -> File:
    w = Weights(15)
    held = linear(w) | tensors(b_dec=w.b_dec) | {"k": torch.tensor(K, dtype=torch.int)}
    path = dictionary_learning(at, "BatchTopKSAE", held | {"threshold": torch.tensor(0.75)})
    return File(path, lambda x: w.out(above(w.pre(x), 0.75)))


def dl_gated(at: Path) -> File:
    w = Weights(16)
    held = tensors(
        decoder_bias=w.b_dec, encoder__weight=w.W_enc, decoder__weight=w.W_dec.T, r_mag=w.r_mag,
        gate_bias=w.gate, mag_bias=w.b_enc,
    )  # fmt: skip

    def function(x: Array) -> tuple[Array, Array]:
        inner = w.W_enc.astype(float) @ (x - w.b_dec)
        return w.out(relu(inner * np.exp(w.r_mag.astype(float)) + w.b_enc) * (inner + w.gate > 0))

    return File(dictionary_learning(at, "GatedAutoEncoder", held), function)


def dl_jumprelu(at: Path) -> File:
    w = Weights(17)
    path = dictionary_learning(at, "JumpReluAutoEncoder", four(w) | tensors(threshold=w.threshold))
    return File(path, lambda x: w.out(above(w.pre(x, centred=False), w.threshold)))
