"""circuit-tracer's transcoders: `layer_N.safetensors`, in a folder with `config.yaml`.

Shapes: F features, D width.
"""

import re
from collections.abc import Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from saelab.errors import FailedRun, UsageError
from saelab.files import write_atomic
from saelab.formats import tensors
from saelab.formats.hooks import INSIDE
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.formats.refusing import of_sign, of_tokens, of_width, refuse
from saelab.origin import Identity, Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Sparsify, Threshold

FILE = re.compile(r"layer_(\d+)\.safetensors")
KEYS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "activation_function.threshold"
CONFIG = "config.yaml"


def recognise(path: Path) -> bool:
    """Whether a file is one layer of a set."""
    return bool(FILE.fullmatch(path.name)) and tensors.may_have(path, KEYS)


def read(path: Path) -> Published:
    """The transcoder of a layer."""
    held, said = tensors.of_safetensors(path), config(path.parent, "transcoder_set")
    form = _sparsify(held, said)
    levels = held.get(THRESHOLD)
    return Published(
        Matrix(held["W_enc"]),
        held["b_enc"],
        Matrix(held["W_dec"]),
        held["b_dec"],
        form,
        levels=levels,
        transcoder=True,
        W_skip=held.get("W_skip"),
        origin=_origin(path, said, "jumprelu" if levels is not None else "relu", form),
    )


def config(folder: Path, kind: str) -> dict[str, Any]:
    """What a set says of its layers. Raises UsageError for one of another kind, FailedRun for a
    damaged file."""
    if not (folder / CONFIG).is_file():
        return {}
    import yaml

    try:
        said = yaml.safe_load((folder / CONFIG).read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise FailedRun(f"{folder / CONFIG} cannot be read ({error})") from None
    if not isinstance(said, dict):
        raise FailedRun(f"{folder / CONFIG} holds no fields")
    if said.get("model_kind", kind) != kind:
        raise UsageError(
            f"{folder} says that it is a {said['model_kind']}, its files are of {kind}"
        )
    return said


def _sparsify(held: dict[str, Any], said: dict[str, Any]) -> Sparsify:
    k = held["k"] if "k" in held else said.get("k")
    return Choice(int(k)) if said.get("activation") == "topk" and k else Threshold()


def _origin(path: Path, said: dict[str, Any], trained: str, form: Sparsify) -> Origin:
    layer = FILE.fullmatch(path.name)
    assert layer is not None
    places = [said.get(f"feature_{side}_hook") for side in ("input", "output")]
    hook, target = (f"blocks.{layer[1]}.{place}" if place else "" for place in places)
    model = said.get("model_name")
    return Origin(
        hook=hook,
        target=target,
        model=Identity(str(model)) if model else None,
        sparsify="topk" if isinstance(form, Choice) else trained,
        k=form.k if isinstance(form, Choice) else None,
        source=str(path),
        format="circuit_tracer",
        more={name: said[name] for name in ("scan",) if name in said},
    )


# --- writing -------------------------------------------------------------------------------------


def write_set(saes: Sequence[SAE], path: Path) -> None:
    """Write transcoders of every layer of a model, from layer 0 on, as one set. Raises UsageError
    for layers that are missing or doubled, and for what its loader does not take.

    >>> circuit_tracer.write_set([SAE.load(run) for run in runs], Path("transcoders/mine"))
    """
    by_layer = _by_layer([sae.frozen() for sae in saes])
    for sae in by_layer:
        reasons = chain(of_tokens(sae), of_width(sae), of_sign(sae), _other(sae, by_layer[0]))
        refuse(sae, "circuit_tracer", reasons)
    for number, sae in enumerate(by_layer):
        held = {name: getattr(sae, name) for name in KEYS}
        if sae.W_skip is not None:
            held["W_skip"] = sae.W_skip
        if sae.levels is not None:
            held[THRESHOLD] = sae.levels
        if isinstance(sae.sparsify, Choice):
            held["k"] = torch.tensor(sae.sparsify.k)
        tensors.write_safetensors(held, path / f"layer_{number}.safetensors")
    write_atomic(path / CONFIG, lambda temporary: temporary.write_text(_yaml(by_layer[0], path)))


def _by_layer(saes: Sequence[SAE]) -> list[SAE]:
    layers: dict[int, SAE] = {}
    for sae in saes:
        hook = INSIDE.fullmatch(sae.origin.hook)
        if hook is None:
            raise UsageError(f"{sae!r} reads no layer's hook point: it cannot be one of a set")
        if int(hook[1]) in layers:
            raise UsageError(f"two transcoders of layer {hook[1]}: a set has one of each")
        layers[int(hook[1])] = sae
    if missing := set(range(max(layers) + 1)) - set(layers):
        raise UsageError(
            f"no transcoder of layer {min(missing)}: a set has every layer from 0 on, its loader "
            "takes no gap"
        )
    return [layers[number] for number in range(len(layers))]


def _other(sae: SAE, first: SAE) -> Iterator[str]:
    if not sae.transcoder:
        yield "it is an autoencoder, and a set is of transcoders"
    if isinstance(sae.sparsify, Threshold) and sae.sparsify.level:
        yield "one level for all features is not held there"
    if sae.n_features != first.n_features:
        yield f"it has {sae.n_features} features, layer 0 has {first.n_features}"
    if sae.sparsify != first.sparsify:
        yield "its sparsifier is another than layer 0's"
    if _places(sae) != _places(first):
        yield f"it reads and writes {_places(sae)}, layer 0 {_places(first)}"


def _places(sae: SAE) -> list[str]:
    return [INSIDE.sub(r"\2", hook) for hook in sae.origin.hooks]


def _yaml(sae: SAE, path: Path) -> str:
    import yaml

    form, places = sae.sparsify, _places(sae)
    said = {
        "model_name": sae.origin.model.name if sae.origin.model else "",
        "model_kind": "transcoder_set",
        "feature_input_hook": places[0],
        "feature_output_hook": places[1],
        "scan": sae.origin.more.get("scan", path.name),
        **({"activation": "topk", "k": form.k} if isinstance(form, Choice) else {}),
    }
    return yaml.safe_dump(said, sort_keys=False)
