"""SAELens, versions 2 to 6: `cfg.json` and `sae_weights.safetensors`, of a finished SAE or of a
training checkpoint.

Shapes: F features, D width in, E width out.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import processed, releases, tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published, gated
from saelab.origin import Identity, Origin
from saelab.sparsify import Choice, Threshold

HEADER, WEIGHTS, SCALER = "cfg.json", "sae_weights.safetensors", "activation_scaler.json"
CHECKPOINT = (SCALER, "trainer_state.pt")
# Older names of fields.
RENAMED = {
    "hook_point": "hook_name",
    "hook_point_head_index": "hook_head_index",
    "activation_fn_str": "activation_fn",
}
NO_FORM = {
    "matching_pursuit": "codes by steps that each depend on the one before",
    "temporal": "codes a token by the ones before it",
}
KEPT = (
    "context_size",
    "prepend_bos",
    "dataset_path",
    "exclude_special_tokens",
    "seqpos_slice",
    "neuronpedia_id",
    "model_from_pretrained_kwargs",
    "release",
    "l0",
)


class Cfg(NamedTuple):
    """What cfg.json says, of whatever version."""

    said: dict[str, Any]
    """every field, those of `metadata` beside the others"""
    architecture: str
    is_checkpoint: bool
    """of a training under way: nothing is folded"""

    @property
    def rescales(self) -> bool:
        """Whether a choice compares pre-activations times their decoder row's norm."""
        default = self.is_checkpoint or "batchtopk" in self.architecture
        return bool(self.said.get("rescale_acts_by_decoder_norm", default))


Tensors = Mapping[str, Tensor]


def recognise(path: Path) -> bool:
    """Whether a folder holds an SAE of this form."""
    return (path / HEADER).is_file() and (path / WEIGHTS).is_file()


def read(path: Path) -> Published:
    """The SAE or transcoder of a folder.

    Raises UsageError for an architecture, a normalisation or a processed model that has no form
    here, and where the scale of its inputs is not known.
    """
    cfg = configured(path)
    held = tensors.of_safetensors(path / WEIGHTS)
    architecture = ARCHITECTURES[cfg.architecture]
    tensors.need(held, architecture.needs, path / WEIGHTS)
    fields = {**_four(held), **architecture.fields(cfg, held)}
    transcoder = "transcoder" in cfg.architecture
    explained = cfg.said.get("hook_name_out")
    if explained and not transcoder and explained != cfg.said.get("hook_name"):
        raise UsageError(
            f"{path} explains {explained} and its architecture is {cfg.architecture!r}, which "
            "gives back what it reads: one of both is wrong, of a transcoder it is 'transcoder' or "
            "'jumprelu_transcoder'"
        )
    return Published(
        **fields,
        transcoder=transcoder,
        centred=bool(cfg.said.get("apply_b_dec_to_input", True)),
        W_skip=held.get("W_skip"),
        out_gain=_out_gain(cfg, held, path),
        mean_free=processed.mean_free(cfg.said, path),
        sizes={
            "features": cfg.said.get("d_sae"),
            "inputs": cfg.said.get("d_in"),
            "outputs": cfg.said.get("d_out"),
        },
        origin=_origin(cfg, path),
        **_input(cfg, path),
    )


def configured(path: Path) -> Cfg:
    """What a folder's cfg.json says. Raises UsageError for an architecture without a form here."""
    written = read_object(path / HEADER)
    said = {RENAMED.get(name, name): value for name, value in written.items()}
    said = releases.completed({**said, **(written.get("metadata") or {})}, path)
    architecture = said.get("architecture") or "standard"
    options = said.get("activation_fn_kwargs") or {}
    if said.get("activation_fn") == "topk" and "k" in options:
        architecture, said["k"] = "topk", options["k"]  # whatever architecture it says
    if architecture not in ARCHITECTURES:
        why = NO_FORM.get(architecture, f"known are {', '.join(ARCHITECTURES)}")
        raise UsageError(f"{path} is of the architecture {architecture!r}, which {why}: no form")
    if said.get("hook_head_index") is not None:
        raise UsageError(
            f"{path} reads head {said['hook_head_index']} of {said.get('hook_name')} alone: single "
            "heads have no form here"
        )
    return Cfg(said, architecture, any((path / name).exists() for name in CHECKPOINT))


# --- architectures -------------------------------------------------------------------------------


def _four(held: Tensors) -> dict[str, Any]:
    fields = {"W_dec": Matrix(held["W_dec"]), "b_dec": held["b_dec"]}
    if "W_enc" in held:
        fields["W_enc"] = Matrix(held["W_enc"], transposed=True)
    return {**fields, "b_enc": held["b_enc"]} if "b_enc" in held else fields


def _standard(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    return {"sparsify": Threshold()}


def _topk(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    return {"sparsify": Choice(int(cfg.said["k"])), "by_decoded": cfg.rescales}


def _abstopk(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    return {"sparsify": Choice(int(cfg.said["k"]), signed=True), "by_decoded": cfg.rescales}


def _jumprelu(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    logarithm = held.get("log_threshold")
    levels = held["threshold"] if logarithm is None else logarithm.double().exp()
    return {"sparsify": Threshold(), "levels": levels}


def _gated(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    W_enc = Matrix(held["W_enc"], transposed=True)
    return gated(W_enc, held["r_mag"], held["b_mag"], held["b_gate"])


def _batchtopk(cfg: Cfg, held: Tensors) -> dict[str, Any]:
    """Of a checkpoint; what training saves at its end is called jumprelu."""
    units = "decoded" if cfg.rescales else "pre"
    return {"sparsify": Threshold(), "levels": held["topk_threshold"], "level_units": units}


class Architecture(NamedTuple):
    fields: Callable[[Cfg, Tensors], dict[str, Any]]
    needs: tuple[str, ...] = ("W_enc", "b_enc", "W_dec", "b_dec")


GATE = ("W_enc", "W_dec", "b_dec", "b_gate", "b_mag", "r_mag")
ARCHITECTURES = {
    "standard": Architecture(_standard),
    "topk": Architecture(_topk),
    "abstopk": Architecture(_abstopk),
    "jumprelu": Architecture(_jumprelu),
    "gated": Architecture(_gated, GATE),
    "batchtopk": Architecture(_batchtopk),
    "matryoshka_batchtopk": Architecture(_batchtopk),
    "transcoder": Architecture(_standard),
    "skip_transcoder": Architecture(_standard),
    "jumprelu_transcoder": Architecture(_jumprelu),
    "jumprelu_skip_transcoder": Architecture(_jumprelu),
}
WORDS = {"standard": "relu", "transcoder": "relu", "skip_transcoder": "relu"}


# --- inputs --------------------------------------------------------------------------------------


def _input(cfg: Cfg, path: Path) -> dict[str, Any]:
    """How inputs are scaled, or each token normalised."""
    kind = cfg.said.get("normalize_activations")
    if isinstance(kind, bool):  # of version 3.0
        kind = "expected_average_only_in" if kind else "none"
    if kind in (None, "none"):
        return {}
    if kind in ("layer_norm", "constant_norm_rescale"):
        return {"token_norm": kind}
    if kind != "expected_average_only_in":
        raise UsageError(f"{path} normalises its inputs by {kind!r}, which has no form here")
    scaler = read_object(path / SCALER) if (path / SCALER).is_file() else {}
    scale = cfg.said.get("norm_scaling_factor") or scaler.get("scaling_factor")
    if not scale:
        raise UsageError(
            f"{path} is of inputs scaled by one number, and neither {HEADER} (norm_scaling_factor) "
            f"nor {SCALER} says which: without it the SAE would read the wrong scale"
        )
    return {"scale": (float(scale), float(scale))}


def _out_gain(cfg: Cfg, held: Tensors, path: Path) -> Tensor | None:
    """What early versions multiply values by before they decode."""
    factor_F = held.get("scaling_factor")
    if factor_F is None or bool(torch.all(factor_F == 1)):
        return None
    if not cfg.said.get("finetuning_scaling_factor"):
        raise UsageError(
            f"{path} has a scaling_factor per feature that {HEADER} does not say to use"
        )
    return factor_F


def _origin(cfg: Cfg, path: Path) -> Origin:
    said, trained = cfg.said, cfg.said.get("training_architecture") or cfg.architecture
    details = said.get("training_architecture_details") or {}
    k = said.get("k") or details.get("k")
    kept = {name: said[name] for name in KEPT if said.get(name) is not None}
    version = said.get("sae_lens_version") or said.get("sae_lens_training_version")
    return Origin(
        hook=str(said.get("hook_name") or ""),
        target=str(said.get("hook_name_out") or ""),
        model=Identity(str(said["model_name"])) if said.get("model_name") else None,
        sparsify=WORDS.get(trained, trained),
        k=None if k is None else round(k),
        source=str(path),
        format="saelens",
        more={"version": version, **kept},
    )
