"""saev, SAEs of vision models: a line of JSON, then a state dict.

Shapes: F features, D width.
"""

import io
import json
import pickle
from pathlib import Path
from typing import Any

import torch

from saelab.errors import FailedRun, UsageError
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.origin import Origin
from saelab.sparsify import Choice, Sparsify, Threshold

KEYS = ("W_enc", "b_enc", "W_dec", "b_dec")
THRESHOLD = "activation.threshold"
LONGEST = 1 << 16  # bytes of a first line


def _header(path: Path) -> dict[str, Any] | None:
    """The first line, where it is a JSON object with a configuration."""
    with path.open("rb") as file:
        line = file.readline(LONGEST)
    if not line.startswith(b"{"):
        return None
    try:
        said = json.loads(line)
    except ValueError:
        return None
    return said if isinstance(said, dict) and "cfg" in said else None


def recognise(path: Path) -> bool:
    """Whether a file begins with such a line."""
    return path.suffix in tensors.PICKLES and path.is_file() and _header(path) is not None


def read(path: Path) -> Published:
    """The SAE of a file. Raises UsageError for a schema or an activation that is not known,
    FailedRun for a damaged file."""
    said = _header(path)
    assert said is not None
    if said.get("schema", 0) < 2:
        raise UsageError(
            f"{path} is of saev's schema {said.get('schema', 'none')}, known are 2 to 5: save it "
            "again with a newer saev"
        )
    held = _held(path)
    tensors.need(held, KEYS, path)
    kind, k = _activation(said["cfg"], path)
    # Its TopK keeps negative winners, of tokens with fewer than k positive ones.
    form: Sparsify = Choice(k) if kind == "top-k" and k else Threshold()
    return Published(
        Matrix(held["W_enc"], transposed=True),
        held["b_enc"],
        Matrix(held["W_dec"]),
        held["b_dec"],
        form,
        levels=held[THRESHOLD] if kind == "batch-top-k" else None,
        sizes={"features": said["cfg"].get("d_sae"), "inputs": said["cfg"].get("d_model")},
        origin=Origin(
            sparsify={"top-k": "topk", "batch-top-k": "batchtopk"}.get(kind, kind),
            k=k,
            source=str(path),
            format="saev",
            more={"inexact": "negative winners are left out"} if kind == "top-k" else {},
        ),
    )


def _activation(cfg: dict[str, Any], path: Path) -> tuple[str, int | None]:
    activation = cfg.get("activation", {})
    options = {**activation, **activation.get("params", {})}
    kind = options.get("key")
    if kind not in ("relu", "top-k", "batch-top-k"):
        raise UsageError(f"{path} has the activation {kind!r}: known are relu, top-k, batch-top-k")
    return kind, options.get("top_k")


def _held(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        file.readline()
        rest = io.BytesIO(file.read())
    try:
        return torch.load(rest, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise UsageError(f"{path} holds more than tensors: reading that could run code") from None
    except (RuntimeError, EOFError, ValueError) as error:
        raise FailedRun(f"{path} cannot be read ({error}): fetch it again") from None
