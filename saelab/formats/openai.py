"""OpenAI's sparse_autoencoder: one .pt per layer."""

from collections.abc import Iterator
from pathlib import Path

import torch

from saelab.errors import UsageError
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.formats.refusing import refuse
from saelab.origin import Origin
from saelab.sae import SAE
from saelab.sparsify import Choice, Threshold

KEYS = ("pre_bias", "encoder.weight", "latent_bias")


def recognise(path: Path) -> bool:
    """Whether a file is a state dict of this form."""
    return tensors.is_pickle(path) and set(KEYS) <= set(tensors.of_pickle(path))


def read(path: Path) -> Published:
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
    return Published(
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


def write(sae: SAE, path: Path) -> None:
    """Write a ReLU SAE, or a TopK one that normalises each token, as `path`. Raises UsageError for
    anything else.

    >>> formats.save(sae, "layer_3.pt", "openai")
    """
    sae = sae.frozen()
    refuse(sae, "openai", _other(sae))
    form = sae.sparsify
    options = {"k": form.k, "postact_fn": "ReLU"} if isinstance(form, Choice) else {}
    unset = torch.zeros(sae.n_features)
    held = {
        "pre_bias": sae.b_dec,
        "encoder.weight": sae.W_enc,
        "latent_bias": sae.b_enc,
        "decoder.weight": sae.W_dec.T,
        "stats_last_nonzero": unset.long(),
        "latents_activation_frequency": unset,
        "latents_mean_square": unset,
        "activation": "TopK" if options else "ReLU",
        **({"activation_state_dict": options} if options else {}),
    }
    tensors.write_pickle(held, path)


def _other(sae: SAE) -> Iterator[str]:
    form = sae.sparsify
    if sae.transcoder or sae.W_skip is not None:
        yield "it is a transcoder, or has a skip"
    if isinstance(form, Choice) and sae.token_norm != "layer_norm":
        yield "a top-k there normalises each token by mean and standard deviation, this does not"
    if isinstance(form, Threshold) and (sae.levels is not None or form.level or sae.token_norm):
        yield "it has thresholds or normalises tokens, and only a plain ReLU is held beside TopK"
    if form.signed:
        yield "its values are signed"
