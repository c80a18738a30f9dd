"""SAELens's files: see `weights.py`."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from tests.formats.weights import Array, D, F, File, K, Weights, above, four, relu, tensors, top


def saelens(
    folder: Path, held: dict[str, torch.Tensor], metadata: dict[str, Any] | None = None, **cfg: Any
) -> Path:
    said = {
        "sae_lens_version": "6.54.12",
        "model_name": "gpt2",
        "hook_name": "blocks.1.hook_mlp_out",
    }
    common = {"d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu"}
    folder.mkdir(parents=True, exist_ok=True)
    save_file(held, folder / "sae_weights.safetensors")
    whole = {**common, **cfg, "metadata": {**said, **(metadata or {})}}
    (folder / "cfg.json").write_text(json.dumps(whole))
    return folder


def saelens_topk_checkpoint(at: Path) -> File:
    w, s = Weights(1), 1.7
    path = saelens(
        at, four(w), architecture="topk", k=K, normalize_activations="expected_average_only_in"
    )
    (at / "activation_scaler.json").write_text(json.dumps({"scaling_factor": s}))

    def function(x: Array) -> tuple[Array, Array]:
        u = w.pre(x * s)
        y, size = w.out(relu(top(u, u * w.norms)))
        return y / s, size / s

    return File(path, function)


def saelens_batchtopk_checkpoint(at: Path) -> File:
    w = Weights(2)
    held = four(w) | {"topk_threshold": torch.tensor(0.8, dtype=torch.float64)}
    path = saelens(at, held, architecture="matryoshka_batchtopk", k=3.0)
    (at / "trainer_state.pt").touch()
    return File(path, lambda x: w.out(relu(w.pre(x)) * (w.pre(x) * w.norms > 0.8)))


def saelens_log_threshold(at: Path) -> File:
    w = Weights(3)
    held = four(w) | tensors(log_threshold=np.log(w.threshold))
    theta = np.exp(np.log(w.threshold).astype(float))
    path = saelens(at, held, architecture="jumprelu", apply_b_dec_to_input=False)
    return File(path, lambda x: w.out(above(w.pre(x, centred=False), theta)))


def saelens_gated(at: Path) -> File:
    w = Weights(4)
    held = tensors(
        W_enc=w.W_enc.T, W_dec=w.W_dec, b_dec=w.b_dec, b_gate=w.gate, b_mag=w.b_enc, r_mag=w.r_mag
    )

    def function(x: Array) -> tuple[Array, Array]:
        inner = w.W_enc.astype(float) @ (x - w.b_dec)
        return w.out(relu(inner * np.exp(w.r_mag.astype(float)) + w.b_enc) * (inner + w.gate > 0))

    return File(saelens(at, held, architecture="gated"), function)


def saelens_layer_norm(at: Path) -> File:
    w = Weights(5)

    def function(x: Array) -> tuple[Array, Array]:
        std = (x - x.mean()).std(ddof=1)
        u = w.pre((x - x.mean()) / (std + 1e-5))
        y, size = w.out(relu(top(u, u)))
        return y * std + x.mean(), size

    options = {"k": K, "rescale_acts_by_decoder_norm": False, "normalize_activations": "layer_norm"}
    return File(saelens(at, four(w), architecture="topk", **options), function)


def saelens_constant_norm(at: Path) -> File:
    w = Weights(6)

    def function(x: Array) -> tuple[Array, Array]:
        c = D**0.5 / np.linalg.norm(x)
        y, size = w.out(relu(w.pre(x * c)))
        return y / c, size

    options = {"normalize_activations": "constant_norm_rescale"}
    return File(saelens(at, four(w), architecture="standard", **options), function)


def saelens_centred_model(at: Path) -> File:
    """Of a model whose writing weights were centred: it saw x - mean(x), and the mean stays."""
    w = Weights(7)

    def function(x: Array) -> tuple[Array, Array]:
        y, size = w.out(relu(w.pre(x - x.mean())))
        return y + x.mean(), size

    said = {"model_from_pretrained_kwargs": {"center_writing_weights": True}}
    return File(saelens(at, four(w), said, architecture="standard"), function)


def saelens_finetuned_v4(at: Path) -> File:
    w = Weights(8)
    factor = np.linspace(0.5, 1.5, F).astype(np.float32)
    at.mkdir(parents=True)
    save_file(four(w) | tensors(scaling_factor=factor), at / "sae_weights.safetensors")
    cfg = {
        "hook_point": "blocks.1.hook_resid_pre", "model_name": "gpt2", "activation_fn": "relu",
        "finetuning_scaling_factor": True, "normalize_activations": None,
    }  # fmt: skip
    (at / "cfg.json").write_text(json.dumps(cfg))
    return File(at, lambda x: w.out(relu(w.pre(x)) * factor))


def saelens_skip_transcoder(at: Path) -> File:
    w = Weights(9)
    held = four(w) | tensors(W_skip=w.W_skip, threshold=w.threshold)
    path = saelens(
        at, held, {"hook_name_out": "blocks.1.hook_mlp_out"}, d_out=D,
        architecture="jumprelu_skip_transcoder", apply_b_dec_to_input=False,
    )  # fmt: skip

    def function(x: Array) -> tuple[Array, Array]:
        y, size = w.out(above(w.pre(x, centred=False), w.threshold))
        return y + w.W_skip.astype(float) @ x, size

    return File(path, function)
