"""dictionary_learning: `ae.pt`, a state dict, and `config.json` beside it.

Shapes: F features, D width.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from saelab.errors import UsageError
from saelab.files import read_object
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published, gated
from saelab.origin import Identity, Origin
from saelab.sparsify import Choice, Threshold

Tensors = Mapping[str, Tensor]

LINEAR = {"encoder.weight", "encoder.bias", "decoder.weight"}
PLAIN = {"W_enc", "b_enc", "W_dec", "b_dec"}


def _linear(held: Tensors, b_dec: str) -> dict[str, Any]:
    """The weights of two `nn.Linear`, the decoder's [D, F]."""
    return {
        "W_enc": Matrix(held["encoder.weight"]),
        "b_enc": held["encoder.bias"],
        "W_dec": Matrix(held["decoder.weight"], transposed=True),
        "b_dec": held[b_dec],
    }


def _plain(held: Tensors) -> dict[str, Any]:
    return {
        "W_enc": Matrix(held["W_enc"], transposed=True),
        "b_enc": held["b_enc"],
        "W_dec": Matrix(held["W_dec"]),
        "b_dec": held["b_dec"],
    }


def _auto_encoder(held: Tensors) -> dict[str, Any]:
    return {**_linear(held, "bias"), "sparsify": Threshold()}


def _auto_encoder_new(held: Tensors) -> dict[str, Any]:
    return {**_linear(held, "decoder.bias"), "sparsify": Threshold(), "centred": False}


def _top_k(held: Tensors) -> dict[str, Any]:
    return {**_linear(held, "b_dec"), "sparsify": Choice(int(held["k"]))}


def _above_threshold(held: Tensors) -> dict[str, Any]:
    """A batch top-k by its inference threshold. Raises UsageError where training never set it."""
    if float(held["threshold"]) < 0:
        raise UsageError(
            f"its threshold is {float(held['threshold']):g}: its training ended before one was "
            "set, and without it a batch top-k codes no token alone"
        )
    return {"sparsify": Threshold(), "levels": held["threshold"]}


def _batch_top_k(held: Tensors) -> dict[str, Any]:
    return {**_linear(held, "b_dec"), **_above_threshold(held)}


def _matryoshka(held: Tensors) -> dict[str, Any]:
    return {**_plain(held), **_above_threshold(held)}


def _jump_relu(held: Tensors) -> dict[str, Any]:
    return {
        **_plain(held),
        "sparsify": Threshold(),
        "levels": held["threshold"],
        "centred": False,
    }


def _gated(held: Tensors) -> dict[str, Any]:
    encoder = gated(
        Matrix(held["encoder.weight"]), held["r_mag"], held["mag_bias"], held["gate_bias"]
    )
    W_dec = Matrix(held["decoder.weight"], transposed=True)
    return {**encoder, "W_dec": W_dec, "b_dec": held["decoder_bias"]}


# dict_class: what it takes, and the tensors it is known by.
CLASSES: dict[str, tuple[Callable[[Tensors], dict[str, Any]], set[str]]] = {
    "AutoEncoder": (_auto_encoder, LINEAR | {"bias"}),
    "AutoEncoderNew": (_auto_encoder_new, LINEAR | {"decoder.bias"}),
    "AutoEncoderTopK": (_top_k, LINEAR | {"b_dec", "k"}),
    "BatchTopKSAE": (_batch_top_k, LINEAR | {"b_dec", "k", "threshold"}),
    "MatryoshkaBatchTopKSAE": (_matryoshka, PLAIN | {"k", "threshold", "group_sizes"}),
    "JumpReluAutoEncoder": (_jump_relu, PLAIN | {"threshold"}),
    "GatedAutoEncoder": (
        _gated,
        {"decoder_bias", "r_mag", "gate_bias", "mag_bias", "encoder.weight", "decoder.weight"},
    ),
}
TRAINED_AS = {
    "AutoEncoder": "relu",
    "AutoEncoderNew": "relu",
    "AutoEncoderTopK": "topk",
    "BatchTopKSAE": "batchtopk",
    "MatryoshkaBatchTopKSAE": "batchtopk",
    "JumpReluAutoEncoder": "jumprelu",
    "GatedAutoEncoder": "gated",
}


def recognise(path: Path) -> bool:
    """Whether a folder holds `ae.pt`, or a file is such a state dict."""
    return _weights(path) is not None


def _weights(path: Path) -> Path | None:
    if path.is_dir():
        return path / "ae.pt" if (path / "ae.pt").is_file() else None
    ours = path.name == "ae.pt" or path.name.startswith("ae_")
    return path if ours and tensors.is_pickle(path) else None


def read(path: Path) -> Published:
    """The dictionary of a folder. Raises UsageError for a class that is not known, for a backup
    made under way, and for a batch top-k without a threshold."""
    weights = _weights(path)
    assert weights is not None
    held = tensors.of_pickle(weights)
    if "ae" in held:
        raise UsageError(
            f"{weights} is a backup of a training under way, whose weights are still of scaled "
            "activations: only what a finished training saved can be read"
        )
    config = weights.parent / "config.json"
    said = read_object(config) if config.is_file() else {}
    trainer = said.get("trainer", {})
    name = _class(held, trainer, weights)
    fields, wanted = CLASSES[name]
    tensors.need(held, tuple(sorted(wanted)), weights)
    sizes = {"features": trainer.get("dict_size"), "inputs": trainer.get("activation_dim")}
    origin = _origin(path, name, trainer, held, said)
    return Published(**fields(held), sizes=sizes, origin=origin)


def _class(held: Mapping[str, Any], trainer: Mapping[str, Any], weights: Path) -> str:
    """The class that the configuration names, else the one that has these tensors."""
    if (named := trainer.get("dict_class")) is not None:
        if named not in CLASSES:
            raise UsageError(f"{weights} is a {named}: known are {', '.join(CLASSES)}")
        return named
    by_tensors = [name for name, (_, wanted) in CLASSES.items() if wanted == set(held)]
    # A newer AutoEncoderTopK has the threshold of a BatchTopKSAE too.
    if by_tensors and by_tensors != ["BatchTopKSAE"]:
        return by_tensors[0]
    raise UsageError(
        f"{weights} has no config.json beside it, and its tensors ({', '.join(sorted(held))}) "
        f"do not say which of {', '.join(CLASSES)} it is"
    )


def _origin(
    path: Path, name: str, trainer: Mapping[str, Any], held: Mapping[str, Any], said: dict[str, Any]
) -> Origin:
    layer, model = trainer.get("layer"), trainer.get("lm_name")
    k = held.get("k")
    length = said.get("buffer", {}).get("ctx_len")
    context = {} if length is None else {"context_size": length}
    return Origin(
        hook="" if layer is None else f"blocks.{layer}.hook_resid_post",
        model=Identity(str(model)) if model else None,
        seed=trainer.get("seed"),
        sparsify=TRAINED_AS[name],
        k=int(k) if isinstance(k, Tensor | int) else None,
        source=str(path),
        format="dictionary_learning",
        more={"dict_class": name, **context},
    )
