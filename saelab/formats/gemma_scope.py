"""Gemma Scope: `params.npz` of the first, `params.safetensors` of the second; layer and place stand
in the path.

Shapes: F features, D width in, E width out.
"""

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import hooks, tensors
from saelab.formats.matrices import Matrix, Member
from saelab.formats.published import Published
from saelab.origin import Identity, Origin
from saelab.sparsify import Threshold

NAMES = ("w_enc", "w_dec", "b_enc", "b_dec", "threshold")
LAYER = re.compile(r"layer_(\d+)")
L0 = re.compile(r"(?:average_)?l0_(\d+)")
# The ending of a repository of the first: (what it reads, what it explains).
SITES = {
    "res": ("blocks.{}.hook_resid_post",) * 2,
    "mlp": ("blocks.{}.hook_mlp_out",) * 2,
    "att": ("blocks.{}.attn.hook_z",) * 2,
    "transcoders": ("blocks.{}.ln2.hook_normalized", "blocks.{}.hook_mlp_out"),
}
REPOSITORY = re.compile(r"gemma-scope-(\d+b)-(?:pt|it)-(res|mlp|att|transcoders)")


def _weights(path: Path) -> Path | None:
    names = ("params.npz", "params.safetensors")
    if path.is_dir():
        return next((path / name for name in names if (path / name).is_file()), None)
    return path if path.name in names else None


def recognise(path: Path) -> bool:
    """Whether a folder holds params.npz or params.safetensors, or a file is one of them."""
    return _weights(path) is not None


def read(path: Path) -> Published:
    """The SAE or transcoder of a folder. Raises UsageError for a cross-layer transcoder."""
    weights = _weights(path)
    assert weights is not None
    second = weights.suffix == ".safetensors"
    raw = tensors.of_safetensors(weights) if second else tensors.of_npz(weights)
    held: dict[str, Any] = {name.lower(): value for name, value in raw.items()}
    tensors.need(held, NAMES, weights)
    if len(held["w_dec"].shape) > 2:
        raise UsageError(
            f"{path} is a cross-layer transcoder: one that writes to several layers has no form "
            "here yet"
        )
    origin = _second(path, weights) if second else _first(path, weights)
    skip = held.get("affine_skip_connection")
    return Published(
        Matrix(held["w_enc"], transposed=True),
        _whole(held["b_enc"]),
        Matrix(held["w_dec"]),
        _whole(held["b_dec"]),
        Threshold(),
        levels=_whole(held["threshold"]),
        transcoder=origin.target != origin.hook or skip is not None,
        centred=False,
        W_skip=None if skip is None else skip.T,
        origin=origin,
    )


def _whole(held: Tensor | Member) -> Tensor:
    return held.whole() if isinstance(held, Member) else held


def _first(path: Path, weights: Path) -> Origin:
    """Of a file of the first, whose place only the names of its folders say."""
    repository = REPOSITORY.search(str(path))
    layer = LAYER.search(str(path))
    hook = target = ""
    if repository and layer:
        hook, target = (place.format(layer[1]) for place in SITES[repository[2]])
    return Origin(
        hook=hook,
        target=target,
        model=Identity(f"google/gemma-2-{repository[1]}") if repository else None,
        sparsify="jumprelu",
        k=_l0(path),
        source=str(path),
        format="gemma_scope",
        more={"exclude_special_tokens": True, **({"layer": int(layer[1])} if layer else {})},
    )


def _second(path: Path, weights: Path) -> Origin:
    config = weights.parent / "config.json"
    said = read_object(config) if config.is_file() else {}
    model = said.get("model_name")
    places = [said.get(f"hf_hook_point_{side}") for side in ("in", "out")]
    hook, target = (hooks.of_place(place, "gemma-3") if place else "" for place in places)
    return Origin(
        hook=hook,
        target=target,
        model=Identity(model) if model else None,
        sparsify="jumprelu",
        k=_l0(path),
        source=str(path),
        format="gemma_scope",
        more={"version": 2, "exclude_special_tokens": True},
    )


def _l0(path: Path) -> int | None:
    found = L0.search(str(path))
    return int(found[1]) if found else None
