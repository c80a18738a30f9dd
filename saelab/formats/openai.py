"""OpenAI's sparse_autoencoder: one .pt per layer."""

from pathlib import Path

from saelab.errors import UsageError
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published, made
from saelab.origin import Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Threshold

KEYS = ("pre_bias", "encoder.weight", "latent_bias")


def recognise(path: Path) -> bool:
    """Whether a file is a state dict of this form."""
    return tensors.is_pickle(path) and set(KEYS) <= set(tensors.of_pickle(path))


def read(path: Path) -> SAE:
    """The SAE of a file: TopK ones normalise each token, ReLU ones take it as it is. Raises
    UsageError for another activation function."""
    held = tensors.of_pickle(path)
    tensors.need(held, KEYS, path)
    kind = held.get("activation", "ReLU")
    options = held.get("activation_state_dict", {})
    if kind == "Identity" or options.get("postact_fn", "ReLU") != "ReLU":
        raise UsageError(f"{path} keeps negative values ({kind}, {options}): no form here")
    if kind not in ("ReLU", "TopK"):
        raise UsageError(f"{path} has the activation function {kind!r}: known are ReLU and TopK")
    W_enc = Matrix(held["encoder.weight"])
    tied = "decoder.weight" not in held
    source = Published(
        W_enc,
        held["latent_bias"],
        W_enc if tied else Matrix(held["decoder.weight"], transposed=True),
        held["pre_bias"],
        Choice(int(options["k"])) if kind == "TopK" else Threshold(),
        token_norm="layer_norm" if kind == "TopK" else "",
        origin=Origin(
            sparsify="topk" if kind == "TopK" else "relu",
            k=options.get("k"),
            source=str(path),
            format="openai",
        ),
    )
    return made(source)
