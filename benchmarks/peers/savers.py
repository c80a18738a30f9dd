"""The packages' side: each saves files of its own. Imports nothing of ours.

Shapes: N tokens, F features, D width.
"""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

K = 4
Saved = tuple[str, Any, Callable[[Path], Any]]  # its name, the module, what saves it


def save(folder: Path, package: str) -> list[str]:
    """Files that a package's own function saves, of random weights, with what it makes of the
    tokens when it has opened them again; returns their names."""
    x_ND = load_file(folder / "x.safetensors")["x"]
    names = []
    torch.manual_seed(1)
    for name, module, write in SAVERS[package](x_ND.shape[1], 4 * x_ND.shape[1]):
        place = folder / package / "theirs" / name
        place.mkdir(parents=True, exist_ok=True)
        _shaken(module)
        write(place)
        made = _made(package, module, place, x_ND)
        whole = {key: value.detach().contiguous() for key, value in made.items()}
        save_file(whole, place / "theirs.safetensors")
        names.append(name)
    return names


@torch.no_grad()
def _shaken(module: torch.nn.Module) -> None:
    """Random weights everywhere: none is left at the zeros it starts with."""
    for name, weight in module.named_parameters():
        scale = 0.5 if weight.ndim > 1 else 0.2
        weight.copy_(torch.randn_like(weight) * scale)
        if "threshold" in name:
            weight.abs_()


def _made(package: str, module: Any, place: Path, x_ND: Tensor) -> dict[str, Tensor]:
    """y [N, D], code [N, F] and the norms [F] of decoder rows."""
    if package == "sae_lens":
        from sae_lens import SAE

        if not place.name.endswith("checkpoint"):
            module = SAE.load_from_disk(place, device="cpu")
        rows, code_NF = module.W_dec, module.encode(x_ND)
        if getattr(module.cfg, "rescale_acts_by_decoder_norm", False):
            rows = torch.nn.functional.normalize(rows)  # its code has the norms in it
        return _parts(module(x_ND), code_NF, rows)
    if package == "sparsify":
        out = module(x_ND)
        code_NF = x_ND.new_zeros(len(x_ND), module.num_latents)
        code_NF.scatter_(1, out.latent_indices, out.latent_acts)
        return _parts(out.sae_out, code_NF, module.W_dec)
    if package == "circuit_tracer":
        return _parts(module(x_ND), module.encode(x_ND), module.W_dec)
    from dictionary_learning.utils import load_dictionary

    module = load_dictionary(str(place), "cpu")[0]
    rows = module.W_dec if hasattr(module, "W_dec") else module.decoder.weight.T
    return _parts(module(x_ND), module.encode(x_ND), rows)


def _parts(y_ND: Tensor, code_NF: Tensor, W_dec: Tensor) -> dict[str, Tensor]:
    return {"y": y_ND, "code": code_NF, "norms": W_dec.norm(dim=1)}


def _save_sae_lens(d_in: int, d_sae: int) -> Iterator[Saved]:
    from sae_lens import SAE
    from sae_lens.saes.sae import TrainingSAE

    metadata = {"model_name": "gpt2", "hook_name": "blocks.1.hook_resid_post"}
    sizes = {"d_in": d_in, "d_sae": d_sae, "dtype": "float32", "device": "cpu"}
    common = {**sizes, "metadata": metadata}
    wide = {"d_out": d_in, "apply_b_dec_to_input": False}
    kinds: dict[str, dict[str, Any]] = {
        "standard": {},
        "topk": {"k": K},
        "abstopk": {"k": K},
        "jumprelu": {},
        "gated": {},
        "transcoder": wide,
        "skip_transcoder": wide,
        "jumprelu_transcoder": wide,
        "jumprelu_skip_transcoder": wide,
    }
    for kind, more in kinds.items():
        module = SAE.from_dict({"architecture": kind, **common, **more})
        yield kind, module, module.save_model
    trained = {
        "topk": {"k": K},
        "batchtopk": {"k": K},
        "matryoshka_batchtopk": {"k": K, "matryoshka_widths": [d_sae // 2, d_sae]},
        "jumprelu": {},
        "gated": {},
    }
    for kind, more in trained.items():
        module = TrainingSAE.from_dict(
            {"architecture": kind, "metadata": metadata, **sizes, **more}
        )
        if hasattr(module, "topk_threshold"):
            module.topk_threshold.fill_(0.7)
        yield f"{kind} trained", module, module.save_inference_model
        if kind == "topk":
            yield f"{kind} checkpoint", module, module.save_model


def _save_sparsify(d_in: int, d_sae: int) -> Iterator[Saved]:
    from sparsify import SparseCoder, SparseCoderConfig

    for name, more in {
        "topk": {},
        "transcoder": {"transcode": True},
        "skip transcoder": {"transcode": True, "skip_connection": True},
    }.items():
        cfg = SparseCoderConfig(num_latents=d_sae, k=K, **more)
        module = SparseCoder(d_in, cfg)
        yield name, module, module.save_to_disk


def _save_dictionary_learning(d_in: int, d_sae: int) -> Iterator[Saved]:
    from dictionary_learning import dictionary, trainers
    from dictionary_learning.trainers.matryoshka_batch_top_k import MatryoshkaBatchTopKSAE

    nested = MatryoshkaBatchTopKSAE(d_in, d_sae, K, [d_sae // 2, d_sae // 2])
    modules = [
        dictionary.AutoEncoder(d_in, d_sae),
        dictionary.AutoEncoderNew(d_in, d_sae),
        dictionary.GatedAutoEncoder(d_in, d_sae),
        dictionary.JumpReluAutoEncoder(d_in, d_sae),
        trainers.top_k.AutoEncoderTopK(d_in, d_sae, K),
        trainers.BatchTopKSAE(d_in, d_sae, K),
        nested,
    ]
    for module in modules:
        name = type(module).__name__
        if isinstance(module, trainers.BatchTopKSAE | MatryoshkaBatchTopKSAE):
            module.threshold.fill_(0.7)
        sizes = {"activation_dim": d_in, "dict_size": d_sae, "k": K, "layer": 1}
        said = {"trainer": {"dict_class": name, "lm_name": "gpt2", **sizes}, "buffer": {}}
        yield name, module, _like_its_trainer(module, said)


def _like_its_trainer(module: torch.nn.Module, said: dict[str, Any]) -> Callable[[Path], None]:
    """What the end of its training loop does: the state on the CPU by torch.save, and a JSON."""

    def write(place: Path) -> None:
        torch.save({k: v.cpu() for k, v in module.state_dict().items()}, place / "ae.pt")
        (place / "config.json").write_text(json.dumps(said, indent=4))

    return write


def _save_circuit_tracer(d_in: int, d_sae: int) -> Iterator[Saved]:
    from circuit_tracer.transcoder.activation_functions import JumpReLU
    from circuit_tracer.transcoder.single_layer_transcoder import SingleLayerTranscoder

    at = {"device": torch.device("cpu"), "dtype": torch.float32}
    for name, skip in (("relu", False), ("jumprelu", False), ("jumprelu skip", True)):
        relu: Any = torch.nn.functional.relu
        active = JumpReLU(torch.rand(d_sae), 0.1) if "jumprelu" in name else relu
        module = SingleLayerTranscoder(d_in, d_sae, active, 0, skip, **at)
        yield name, module, _as_a_layer(module)


def _as_a_layer(module: Any) -> Callable[[Path], None]:
    return lambda place: module.to_safetensors(str(place / "layer_0.safetensors"))


SAVERS: dict[str, Callable[[int, int], Iterator[Saved]]] = {
    "sae_lens": _save_sae_lens,
    "sparsify": _save_sparsify,
    "dictionary_learning": _save_dictionary_learning,
    "circuit_tracer": _save_circuit_tracer,
}
