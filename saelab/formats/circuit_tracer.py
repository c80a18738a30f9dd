"""circuit-tracer's transcoders: `layer_N.safetensors`, in a folder with `config.yaml`.

Shapes: F features, D width.
"""

import re
from pathlib import Path
from typing import Any

from saelab.errors import FailedRun, UsageError
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published, made
from saelab.origin import Identity, Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Sparsify, Threshold

FILE = re.compile(r"layer_(\d+)\.safetensors")
KEYS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "activation_function.threshold"
CONFIG = "config.yaml"


def recognise(path: Path) -> bool:
    """Whether a file is one layer of a set."""
    return bool(FILE.fullmatch(path.name)) and set(KEYS) <= tensors.names(path)


def read(path: Path) -> SAE:
    """The transcoder of a layer."""
    held, said = tensors.of_safetensors(path), _config(path.parent)
    form = _sparsify(held, said)
    levels = held.get(THRESHOLD)
    source = Published(
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
    return made(source)


def _config(folder: Path) -> dict[str, Any]:
    """What the set says of its layers. Raises UsageError for cross-layer ones, FailedRun for a
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
    if said.get("model_kind", "transcoder_set") != "transcoder_set":
        raise UsageError(
            f"{folder} is a {said['model_kind']}: one that writes to several layers has no form "
            "here yet"
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
