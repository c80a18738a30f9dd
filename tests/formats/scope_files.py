"""Files of released sets of SAEs, and of packages for circuits and vision: see `weights.py`."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from safetensors.torch import save_file

from tests.formats.weights import (
    Array,
    D,
    F,
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


def openai_file(at: Path, w: Weights, kind: str, tied: bool = False) -> Path:
    held = tensors(pre_bias=w.b_dec, encoder__weight=w.W_enc, latent_bias=w.b_enc)
    more: dict[str, Any] = {} if tied else tensors(decoder__weight=w.W_dec.T)
    options = {"activation_state_dict": {"k": K, "postact_fn": "ReLU"}} if kind == "TopK" else {}
    at.mkdir(parents=True)
    torch.save(held | more | {"activation": kind} | options, at / "layer_3.pt")
    return at / "layer_3.pt"


def openai_topk(at: Path) -> File:
    w = Weights(18)

    def function(x: Array) -> tuple[Array, Array]:
        std = (x - x.mean()).std(ddof=1)
        u = w.pre((x - x.mean()) / (std + 1e-5))
        y, size = w.out(relu(top(u, u)))
        return y * std + x.mean(), size

    return File(openai_file(at, w, "TopK"), function)


def openai_tied(at: Path) -> File:
    w = Weights(19)
    path = openai_file(at, w, "ReLU", tied=True)
    w.W_dec, w.norms = w.W_enc, np.linalg.norm(w.W_enc.astype(float), axis=1)
    return File(path, lambda x: w.out(relu(w.pre(x))))


def gemma_scope(at: Path) -> File:
    w = Weights(20, unit=True)
    path = at / "gemma-scope-2b-pt-res" / "layer_12" / "width_16k" / "average_l0_82"
    path.mkdir(parents=True)
    # W_enc in column-major order, as a transpose is saved
    np.savez(path / "params.npz", W_enc=w.W_enc.T, W_dec=w.W_dec, b_enc=w.b_enc, b_dec=w.b_dec,
             threshold=w.threshold)  # fmt: skip
    return File(path, lambda x: w.out(above(w.pre(x, centred=False), w.threshold)))


def gemma_scope_transcoder(at: Path) -> File:
    w = Weights(21)
    path = at / "gemma-scope-2b-pt-transcoders" / "layer_3" / "width_16k" / "average_l0_5"
    path.mkdir(parents=True)
    np.savez_compressed(path / "params.npz", w_enc=np.ascontiguousarray(w.W_enc.T), w_dec=w.W_dec,
                        b_enc=w.b_enc, b_dec=w.b_dec, threshold=w.threshold)  # fmt: skip
    return File(path / "params.npz", lambda x: w.out(above(w.pre(x, centred=False), w.threshold)))


def gemma_scope_2(at: Path) -> File:
    w = Weights(22)
    path = at / "transcoder" / "layer_3_width_16k_l0_small_affine"
    path.mkdir(parents=True)
    held = tensors(w_enc=w.W_enc.T, w_dec=w.W_dec, b_enc=w.b_enc, b_dec=w.b_dec,
                   threshold=w.threshold, affine_skip_connection=w.W_skip.T)  # fmt: skip
    save_file(held, path / "params.safetensors")
    norm = "model.layers.3.{}_feedforward_layernorm.output"
    said = {f"hf_hook_point_{s}": norm.format(n) for s, n in (("in", "pre"), ("out", "post"))}
    (path / "config.json").write_text(json.dumps(said))

    def function(x: Array) -> tuple[Array, Array]:
        y, size = w.out(above(w.pre(x, centred=False), w.threshold))
        return y + w.W_skip.astype(float) @ x, size

    return File(path, function)


def llama_scope(at: Path) -> File:
    """Its own loading: weights brought to raw activations, rows to unit length, then the level."""
    w, norm = Weights(23), 5.0
    (at / "checkpoints").mkdir(parents=True)
    save_file(linear(w) | tensors(decoder__bias=w.b_dec), at / "checkpoints" / "final.safetensors")
    said = {
        "d_model": D, "d_sae": F, "hook_point_in": "blocks.3.hook_resid_post", "act_fn": "jumprelu",
        "hook_point_out": "blocks.3.hook_resid_post", "jump_relu_threshold": 0.4,
        "norm_activation": "dataset-wise", "sparsity_include_decoder_norm": True,
        "dataset_average_activation_norm": {"in": norm, "out": norm},
    }  # fmt: skip
    (at / "hyperparams.json").write_text(json.dumps(said))
    s = D**0.5 / norm

    def function(x: Array) -> tuple[Array, Array]:
        u = (w.W_enc.astype(float) @ x + w.b_enc / s) * w.norms
        rows = w.W_dec.astype(float) / w.norms[:, None]
        return above(u, 0.4) @ rows + w.b_dec / s, above(u, 0.4)

    return File(at, function)


def r1_distill(at: Path) -> File:
    w, norm = Weights(24), 7.0
    at.mkdir(parents=True)
    held = linear(w) | tensors(decoder__bias=w.b_dec, log_jumprelu_threshold=np.log(w.threshold))
    save_file(held, at / "sae_weights.safetensors")
    said = {
        "d_model": D, "expansion_factor": F // D, "hook_point_in": "blocks.3.hook_resid_post",
        "hook_point_out": "blocks.3.hook_resid_post", "norm_activation": "dataset-wise",
        "dataset_average_activation_norm": {"in": norm, "out": norm},
    }  # fmt: skip
    (at / "config.json").write_text(json.dumps(said))
    s = D**0.5 / norm
    theta = np.exp(np.log(w.threshold).astype(float))

    def function(x: Array) -> tuple[Array, Array]:
        y, size = w.out(above(w.pre(x * s, centred=False), theta))
        return y / s, size / s

    return File(at, function)


def qwen_scope(at: Path) -> File:
    w = Weights(25)
    folder = at / f"SAE-Res-Qwen3-1.7B-Base-W32K-L0_{K}"
    folder.mkdir(parents=True)
    held = tensors(W_enc=w.W_enc, W_dec=w.W_dec.T, b_enc=w.b_enc, b_dec=w.b_dec)
    torch.save(held, folder / "layer3.sae.pt")

    def function(x: Array) -> tuple[Array, Array]:
        u = relu(w.pre(x, centred=False))
        return w.out(top(u, u))

    return File(folder / "layer3.sae.pt", function)


def goodfire(at: Path) -> File:
    w = Weights(26)
    at.mkdir(parents=True)
    held = tensors(encoder_linear__weight=w.W_enc, encoder_linear__bias=w.b_enc,
                   decoder_linear__weight=w.W_dec.T, decoder_linear__bias=w.b_dec)  # fmt: skip
    path = at / "Llama-3.1-8B-Instruct-SAE-l19.pth"
    torch.save(held, path)
    return File(path, lambda x: w.out(relu(w.pre(x, centred=False))))


def deepseek(at: Path) -> File:
    w = Weights(27)
    at.mkdir(parents=True)
    path = at / "DeepSeek-R1-SAE-l37.pt"
    torch.save(linear(w) | tensors(decoder__bias=w.b_dec), path)
    return File(path, lambda x: w.out(relu(w.pre(x, centred=False))))


def circuit_tracer(at: Path) -> File:
    w = Weights(28)
    at.mkdir(parents=True)
    held = tensors(W_enc=w.W_enc, W_dec=w.W_dec, b_enc=w.b_enc, b_dec=w.b_dec, W_skip=w.W_skip)
    save_file(held | {"k": torch.tensor(K)}, at / "layer_3.safetensors")
    said = {"model_name": "gpt2", "model_kind": "transcoder_set", "activation": "topk", "k": K}
    places = {"feature_input_hook": "mlp.hook_in", "feature_output_hook": "hook_mlp_out"}
    (at / "config.yaml").write_text(yaml.safe_dump(said | places))

    def function(x: Array) -> tuple[Array, Array]:
        u = relu(w.pre(x, centred=False))
        y, size = w.out(top(u, u))
        return y + w.W_skip.astype(float) @ x, size

    return File(at / "layer_3.safetensors", function)


def llamascopium(at: Path, by_norm: bool = True) -> File:
    """x scaled by the first norm, the choice by pre-activations times row norms, the output scaled
    back by the second."""
    w, norms = Weights(29), (5.0, 8.0)
    at.mkdir(parents=True)
    places = ("blocks.3.ln2.hook_normalized", "blocks.3.hook_mlp_out")
    held = tensors(
        W_E=w.W_enc.T, b_E=w.b_enc, W_D=w.W_dec, b_D=w.b_dec,
        activation_function__log_jumprelu_threshold=np.log(w.threshold),
    )  # fmt: skip
    for place, norm in zip(places, norms, strict=True):
        held[f"dataset_average_activation_norm.{place}"] = torch.tensor(norm)
    save_file(held, at / "sae_weights.safetensors")
    said = {
        "sae_type": "sae", "d_model": D, "act_fn": "jumprelu", "norm_activation": "dataset-wise",
        "hook_point_in": places[0], "hook_point_out": places[1],
        "sparsity_include_decoder_norm": by_norm,
    }  # fmt: skip
    (at / "config.json").write_text(json.dumps(said))
    s_in, s_out = (D**0.5 / norm for norm in norms)
    theta = np.exp(np.log(w.threshold).astype(float))

    def function(x: Array) -> tuple[Array, Array]:
        u = w.pre(x * s_in, centred=False)
        z = relu(u) * (u * (w.norms if by_norm else 1) > theta)
        y, size = w.out(z)
        return y / s_out, size / s_out

    return File(at, function)


def llamascopium_plain(at: Path) -> File:
    return llamascopium(at, by_norm=False)


def saev(at: Path) -> File:
    w = Weights(30, unit=True)
    at.mkdir(parents=True)
    buffer = io.BytesIO()
    held = four(w) | {"activation.threshold": torch.tensor(0.6)}
    torch.save(held, buffer)
    header = {"schema": 5, "cfg": {"d_model": D, "activation": {"key": "batch-top-k", "top_k": K}}}
    (at / "sae.pt").write_bytes(json.dumps(header).encode() + b"\n" + buffer.getvalue())
    return File(at / "sae.pt", lambda x: w.out(above(w.pre(x), 0.6)))
