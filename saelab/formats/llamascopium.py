"""Llamascopium, formerly Language-Model-SAEs: `config.json` with `sae_type`, and the weights in one
of several files.

Shapes: F features, D width in, E width out.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import tensors
from saelab.formats.llama_scope import scale
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.origin import Origin
from saelab.sparsify import Choice, Sparsify, Threshold

HEADER = "config.json"
FILES = (
    "sae_weights.safetensors",
    "sae_weights.pt",
    "checkpoints/pruned.safetensors",
    "checkpoints/pruned.pt",
    "checkpoints/final.safetensors",
    "checkpoints/final.pt",
)
KEYS = ("W_E", "b_E", "W_D", "b_D")
LOG_THRESHOLD = "activation_function.log_jumprelu_threshold"
NORM = re.compile(r"dataset_average_activation_norm\.(.+)")


def _weights(path: Path) -> Path | None:
    return next((path / name for name in FILES if (path / name).is_file()), None)


def recognise(path: Path) -> bool:
    """Whether a folder holds a configuration of this form and weights."""
    if not (path / HEADER).is_file() or _weights(path) is None:
        return False
    return "sae_type" in read_object(path / HEADER)


def read(path: Path) -> Published:
    """The SAE or transcoder of a folder. Raises UsageError for other dictionaries of the package
    and for activation functions that have no form here."""
    said, weights = read_object(path / HEADER), _weights(path)
    assert weights is not None
    if said["sae_type"] != "sae" or said.get("use_glu_encoder"):
        kind = "SAE with a gated linear encoder" if said["sae_type"] == "sae" else said["sae_type"]
        raise UsageError(f"{path} is a {kind}: no form here yet")
    held = _held(weights)
    tensors.need(held, KEYS[:3], weights)
    W_dec, hook_in = Matrix(held["W_D"]), str(said.get("hook_point_in") or "")
    hook_out = str(said.get("hook_point_out") or hook_in)
    by_decoded = bool(said.get("sparsity_include_decoder_norm", True))
    logarithm = held.get(LOG_THRESHOLD)
    return Published(
        Matrix(held["W_E"], transposed=True),
        held["b_E"],
        W_dec,
        held["b_D"] if "b_D" in held else held["W_D"].new_zeros(W_dec.shape[1]),
        _sparsify(said, path),
        levels=None if logarithm is None else logarithm.double().exp(),
        level_units="decoded" if by_decoded else "pre",
        by_decoded=by_decoded,
        transcoder=hook_in != hook_out,
        centred=False,
        scale=scale(_with_norms(said, held), path),
        sizes={"inputs": said.get("d_model")},
        origin=Origin(
            hook=hook_in,
            target=hook_out,
            sparsify=str(said["act_fn"]),
            k=said.get("top_k") if "topk" in said["act_fn"] else None,
            source=str(path),
            format="llamascopium",
        ),
    )


def _held(weights: Path) -> dict[str, Any]:
    if weights.suffix == ".safetensors":
        return dict(tensors.of_safetensors(weights))
    held = tensors.of_pickle(weights)
    return held.get("sae", held)


def _with_norms(said: dict[str, Any], held: dict[str, Tensor]) -> dict[str, Any]:
    """The configuration with the mean norms that lie among the weights."""
    norms = {found[1]: float(held[name]) for name in held if (found := NORM.fullmatch(name))}
    return {**said, "dataset_average_activation_norm": norms}


def _sparsify(said: dict[str, Any], path: Path) -> Sparsify:
    kind = said["act_fn"]
    if kind in ("relu", "jumprelu"):
        return Threshold()
    if kind == "topk":
        return Choice(int(said["top_k"]))
    raise UsageError(
        f"{path} has the activation function {kind!r}, whose choice for one token needs others: "
        "convert it to jumprelu with its own package"
    )
