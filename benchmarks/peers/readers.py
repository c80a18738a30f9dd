"""The packages' side: each opens what we wrote. Imports nothing of ours.

Shapes: N tokens, F features, D width.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# What each is called where packages are installed from; none: a repository that is no package.
DISTRIBUTIONS = {
    "sae_lens": "sae-lens",
    "sparsify": "eai-sparsify",
    "dictionary_learning": "dictionary-learning",
    "circuit_tracer": "circuit-tracer",
    "sparse_autoencoder": None,
}


def read(folder: Path, package: str) -> dict[str, Any]:
    """What a package makes of each of our folders, against what we made: largest relative
    differences, or why it does not open it."""
    x_ND, rows = load_file(folder / "x.safetensors")["x"], {}
    for place in sorted(path for path in (folder / package / "ours").iterdir() if path.is_dir()):
        ours = load_file(place / "ours.safetensors")
        try:
            theirs = READERS[package](place, x_ND)
        except Exception as error:  # its own refusal is a result
            rows[place.name] = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            continue
        differences = [_apart(y_ND, ours[f"y{layer}"]) for layer, y_ND in enumerate(theirs)]
        assert len(differences) == len(ours)
        rows[place.name] = max(differences)
    return rows


def _apart(mine: Tensor, theirs: Tensor) -> float:
    return float((mine.detach() - theirs).abs().max() / theirs.abs().max())


def _sae_lens(place: Path, x_ND: Tensor) -> list[Tensor]:
    from sae_lens import SAE

    return [SAE.load_from_disk(place, device="cpu")(x_ND)]


def _sparsify(place: Path, x_ND: Tensor) -> list[Tensor]:
    from sparsify import SparseCoder

    return [SparseCoder.load_from_disk(place, device="cpu")(x_ND).sae_out]


def _dictionary_learning(place: Path, x_ND: Tensor) -> list[Tensor]:
    from dictionary_learning.utils import load_dictionary

    return [load_dictionary(str(place), "cpu")[0](x_ND)]


def _sparse_autoencoder(place: Path, x_ND: Tensor) -> list[Tensor]:
    from sparse_autoencoder.model import Autoencoder

    held = torch.load(place / "sae.pt", weights_only=True)
    return [Autoencoder.from_state_dict(held)(x_ND)[2]]


def _circuit_tracer(place: Path, x_ND: Tensor) -> list[Tensor]:
    import yaml
    from circuit_tracer.transcoder import load_transcoder_set

    # `load_transcoders` of its hub module does this with the same fields; it wants an older hub.
    said = yaml.safe_load((place / "config.yaml").read_text())
    assert said["model_kind"] == "transcoder_set"
    paths = dict(enumerate(map(str, sorted(place.glob("layer_*.safetensors")))))
    names = {name: said[name] for name in ("scan", "feature_input_hook", "feature_output_hook")}
    at = {"device": torch.device("cpu"), "dtype": torch.float32}
    opened = load_transcoder_set(paths, **names, **at)
    return [opened[layer](x_ND) for layer in paths]


READERS = {
    "sae_lens": _sae_lens,
    "sparsify": _sparsify,
    "dictionary_learning": _dictionary_learning,
    "sparse_autoencoder": _sparse_autoencoder,
    "circuit_tracer": _circuit_tracer,
}
