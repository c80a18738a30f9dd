"""circuit-tracer's cross-layer transcoders: a folder of `W_enc_N.safetensors` and
`W_dec_N.safetensors` with `config.yaml`.

Shapes: L layers, F features per layer, D width.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab import joint
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic
from saelab.formats import circuit_tracer, tensors
from saelab.formats.circuit_tracer import CONFIG
from saelab.formats.hooks import INSIDE
from saelab.origin import Identity, Origin
from saelab.sparsify import Choice, Threshold

KIND = "cross_layer_transcoder"


def recognise(path: Path) -> bool:
    """Whether a folder holds one."""
    return (path / "W_enc_0.safetensors").is_file() and (path / "W_dec_0.safetensors").is_file()


def read(path: Path) -> CrossLayerTranscoder:
    """That of a folder, exactly: its decoder rows keep their norms.

    Raises FailedRun for damaged files, layers that are missing, and shapes that do not fit.
    """
    n_layers = len(list(path.glob("W_enc_*.safetensors")))
    pairs = [_layer(path, i) for i in range(n_layers)]
    said = circuit_tracer.config(path, KIND)
    has_levels = ["levels" in layer for layer, _ in pairs]
    if any(has_levels) and not all(has_levels):
        raise FailedRun(f"{path} has no threshold of layer {has_levels.index(False)}, others have")
    b_dec = torch.cat([b_dec_D for _, b_dec_D in pairs])
    try:
        clt = CrossLayerTranscoder.of([layer for layer, _ in pairs], b_dec, Threshold())
    except UsageError as error:
        raise FailedRun(f"{path}: {error}") from None
    clt.origin = _origin(path, said, n_layers, "jumprelu" if all(has_levels) else "relu")
    return clt


def _layer(path: Path, i: int) -> tuple[dict[str, Tensor], Tensor]:
    """The tensors of a layer by our names, and what is added to its output."""
    names = (f"W_enc_{i}", f"b_enc_{i}", f"b_dec_{i}", f"W_dec_{i}")
    files = [path / f"W_enc_{i}.safetensors", path / f"W_dec_{i}.safetensors"]
    if missing := [file.name for file in files if not file.is_file()]:
        raise FailedRun(f"{path} has no {missing[0]}: it has every layer from 0 on, without a gap")
    held = {name: t for file in files for name, t in tensors.of_safetensors(file).items()}
    tensors.need(held, names, path)
    W_enc, b_enc, b_dec, W_dec = (held[name].float() for name in names)
    layer = {"W_enc": W_enc, "b_enc": b_enc, "W_dec": W_dec.flatten(1).contiguous()}
    if f"threshold_{i}" in held:
        layer["levels"] = held[f"threshold_{i}"].float().flatten()
    return layer, b_dec


def _origin(path: Path, said: dict[str, Any], n_layers: int, trained: str) -> Origin:
    places = [said.get(f"feature_{side}_hook") for side in ("input", "output")]
    hooks = [
        joint.joined(f"blocks.{i}.{place}" for i in range(n_layers)) if place else ""
        for place in places
    ]
    model = said.get("model_name")
    return Origin(
        hook=hooks[0],
        target=hooks[1],
        model=Identity(str(model)) if model else None,
        sparsify=trained,
        source=str(path),
        format="circuit_tracer_clt",
        more={name: said[name] for name in ("scan",) if name in said},
    )


def write(clt: Coder, path: Path) -> None:
    """Write a cross-layer transcoder in inference form. Raises UsageError for what its loader does
    not take.

    >>> formats.save(CrossLayerTranscoder.load("runs/clt"), "for-tracing", "circuit_tracer_clt")
    """
    assert isinstance(clt, CrossLayerTranscoder)
    clt = clt.frozen()
    for reason in _refused(clt):
        raise UsageError(f"{clt!r} cannot be written as circuit_tracer_clt: {reason}")
    b_dec_LD = clt.b_dec.view(clt.n_layers, -1)
    for i, layer in enumerate(clt.layers):
        held = {f"W_enc_{i}": layer.W_enc, f"b_enc_{i}": layer.b_enc, f"b_dec_{i}": b_dec_LD[i]}
        if layer.levels is not None:
            held[f"threshold_{i}"] = layer.levels
        rows_FLD = layer.W_dec.view(len(layer.b_enc), clt.n_layers - i, -1)
        tensors.write_safetensors(held, path / f"W_enc_{i}.safetensors")
        tensors.write_safetensors({f"W_dec_{i}": rows_FLD}, path / f"W_dec_{i}.safetensors")
    said = _yaml(clt, path)
    write_atomic(path / CONFIG, lambda temporary: temporary.write_text(said, encoding="utf-8"))


def _refused(clt: CrossLayerTranscoder) -> Iterator[str]:
    if isinstance(clt.sparsify, Choice):
        yield (
            f"its loader knows thresholds alone, and this picks k={clt.sparsify.k} of each layer: "
            "train it with --sparsify batchtopk, whose inference form has a threshold"
        )
    elif clt.sparsify.signed or clt.sparsify.level:
        yield "signed values, or one level without levels of the features, are not held there"
    if clt.d_out != clt.d_model:
        yield f"it reads {clt.d_model} numbers and writes {clt.d_out}"
    for number, hook in enumerate(joint.parts(clt.origin.hook)):
        inside = INSIDE.fullmatch(hook)
        if inside is None or int(inside[1]) != number:
            yield f"its layer {number} reads {hook or 'an unknown hook'}, every layer from 0 is due"
    if any(len(_places(name)) > 1 for name in clt.origin.hooks):
        yield "its layers read or write at places of different names"


def _places(hook: str) -> set[str]:
    return {INSIDE.sub(r"\2", part) for part in joint.parts(hook)}


def _yaml(clt: CrossLayerTranscoder, path: Path) -> str:
    import yaml

    source, target = (_places(hook).pop() for hook in clt.origin.hooks)
    said = {
        "model_name": clt.origin.model.name if clt.origin.model else "",
        "model_kind": KIND,
        "feature_input_hook": source,
        "feature_output_hook": target,
        "scan": clt.origin.more.get("scan", path.name),
    }
    return yaml.safe_dump(said, sort_keys=False)
