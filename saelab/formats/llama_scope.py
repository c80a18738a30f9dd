"""Llama Scope (`hyperparams.json` and `checkpoints/final.safetensors`) and the R1-distill SAEs of
the same makers (`config.json`, `sae_weights.safetensors`).

Shapes: F features, D width.
"""

from pathlib import Path
from typing import Any

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.origin import Origin
from saelab.sparsify import Choice, Sparsify, Threshold

HEADER, WEIGHTS = "hyperparams.json", "checkpoints/final.safetensors"
KEYS = ("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")


def recognise(path: Path) -> bool:
    """Whether a folder holds an SAE of Llama Scope."""
    return (path / HEADER).is_file() and (path / WEIGHTS).is_file()


def read(path: Path) -> Published:
    """The SAE of a folder. Raises UsageError for an activation function that is not known, and
    where the norm of its inputs is not said."""
    said, held = read_object(path / HEADER), tensors.of_safetensors(path / WEIGHTS)
    tensors.need(held, KEYS, path / WEIGHTS)
    return Published(
        Matrix(held["encoder.weight"]),
        held["encoder.bias"],
        Matrix(held["decoder.weight"], transposed=True),
        held["decoder.bias"],
        _sparsify(said, path),
        levels=tensors.number(said["jump_relu_threshold"]) if _jumps(said) else None,
        level_units="raw",  # its threshold was measured on the finished form
        by_decoded=bool(said.get("sparsity_include_decoder_norm", False)),
        transcoder=_is_transcoder(said),
        centred=bool(said.get("apply_decoder_bias_to_pre_encoder", False)),
        scale=scale(said, path),
        sizes={"features": said.get("d_sae"), "inputs": said.get("d_model")},
        origin=Origin(
            hook=str(said.get("hook_point_in") or ""),
            target=str(said.get("hook_point_out") or ""),
            sparsify=str(said["act_fn"]),
            k=said.get("top_k") if said["act_fn"] == "topk" else None,
            source=str(path),
            format="llama_scope",
        ),
    )


def _is_transcoder(said: dict[str, Any]) -> bool:
    reads, explains = (said.get(f"hook_point_{side}") for side in ("in", "out"))
    return bool(explains) and explains != reads


def _jumps(said: dict[str, Any]) -> bool:
    return said["act_fn"] == "jumprelu"


def _sparsify(said: dict[str, Any], path: Path) -> Sparsify:
    forms: dict[str, Sparsify] = {"jumprelu": Threshold(), "relu": Threshold()}
    if said["act_fn"] == "topk":
        return Choice(int(said["top_k"]))
    if said["act_fn"] not in forms:
        raise UsageError(f"{path} has the activation function {said['act_fn']!r}: no form here")
    return forms[said["act_fn"]]


def scale(said: dict[str, Any], path: Path) -> tuple[float, float]:
    """What inputs were multiplied by and outputs divided by: sqrt(D) over their mean norms."""
    kind = said.get("norm_activation", "no-norm")
    if kind in ("no-norm", "inference"):
        return (1.0, 1.0)
    if kind != "dataset-wise":
        raise UsageError(f"{path} normalises each {kind.split('-')[0]}: no form here")
    norms = said.get("dataset_average_activation_norm") or {}
    # Older files say "in" and "out", newer ones the hook point.
    norm_in, norm_out = (
        norms.get(side) or norms.get(said.get(f"hook_point_{side}")) for side in ("in", "out")
    )
    if not (norm_in and norm_out):
        raise UsageError(f"{path} does not say the mean norm of its inputs: its scale is unknown")
    root = float(said["d_model"]) ** 0.5
    return (root / float(norm_in), root / float(norm_out))


DISTILLED = "sae_weights.safetensors"
LOG_THRESHOLD = "log_jumprelu_threshold"


def recognise_distilled(path: Path) -> bool:
    """Whether a folder holds an SAE of R1-distill."""
    weights = path / DISTILLED
    config = path / "config.json"
    is_ours = config.is_file() and "sae_type" not in read_object(config)
    return is_ours and tensors.may_have(weights, [LOG_THRESHOLD])


def read_distilled(path: Path) -> Published:
    """The SAE of a folder: its threshold was learned on scaled inputs."""
    said, held = read_object(path / "config.json"), tensors.of_safetensors(path / DISTILLED)
    tensors.need(held, (*KEYS, LOG_THRESHOLD), path / DISTILLED)
    return Published(
        Matrix(held["encoder.weight"]),
        held["encoder.bias"],
        Matrix(held["decoder.weight"], transposed=True),
        held["decoder.bias"],
        Threshold(),
        levels=held[LOG_THRESHOLD].double().exp(),
        centred=False,
        scale=scale(said, path),
        sizes={"features": said.get("d_sae"), "inputs": said.get("d_model")},
        origin=Origin(
            hook=str(said.get("hook_point_in") or ""),
            target=str(said.get("hook_point_out") or ""),
            sparsify="jumprelu",
            source=str(path),
            format="r1_distill",
        ),
    )
