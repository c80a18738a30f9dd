"""SAEs written as dictionary_learning keeps them.

Shapes: F features.
"""

from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from saelab.formats import tensors
from saelab.formats.hooks import INSIDE
from saelab.formats.refusing import of_sign, of_tokens, refuse
from saelab.sae import SAE
from saelab.sparsify import Choice, Own


def write(sae: SAE, path: Path) -> None:
    """Write an SAE as the class that codes tokens alone as it does: AutoEncoder, AutoEncoderTopK or
    JumpReluAutoEncoder. Raises UsageError for what none of them does.

    >>> formats.save(sae, "trainer_0", "dictionary_learning")
    """
    sae = sae.frozen()
    refuse(sae, "dictionary_learning", chain(of_tokens(sae), of_sign(sae), _other(sae)))
    form, linear = (
        sae.sparsify,
        {
            "encoder.weight": sae.W_enc,
            "encoder.bias": sae.b_enc,
            "decoder.weight": sae.W_dec.T,
        },
    )
    assert not isinstance(form, Own)  # which is refused above
    if isinstance(form, Choice):
        number = torch.tensor(form.k, dtype=torch.int32)
        name, held = "AutoEncoderTopK", {**linear, "b_dec": sae.b_dec, "k": number}
        held["threshold"] = torch.tensor(-1.0)
    elif sae.levels is None and not form.level:
        name, held = "AutoEncoder", {**linear, "bias": sae.b_dec}
    else:
        name, held = "JumpReluAutoEncoder", _uncentred(sae, form.level)
    tensors.write_pickle(held, path / "ae.pt")
    tensors.write_fields(_config(sae, name), path / "config.json")


def _other(sae: SAE) -> Iterator[str]:
    if sae.transcoder or sae.W_skip is not None:
        yield "it is a transcoder, or has a skip, and only autoencoders are held there"


def _uncentred(sae: SAE, level: float) -> dict[str, Tensor]:
    """The weights of one that subtracts nothing from its input."""
    b_enc = sae.b_enc.double() - sae.W_enc.double() @ sae.b_dec.double()
    levels_F = torch.full_like(sae.b_enc, level) if sae.levels is None else sae.levels
    held = {"W_enc": sae.W_enc.T, "b_enc": b_enc.float(), "W_dec": sae.W_dec, "b_dec": sae.b_dec}
    return {**held, "threshold": levels_F}


def _config(sae: SAE, name: str) -> dict[str, Any]:
    origin = sae.origin
    layer = INSIDE.fullmatch(origin.hook)
    trainer = {
        "dict_class": name,
        "activation_dim": sae.d_model,
        "dict_size": sae.n_features,
        "lm_name": origin.model.name if origin.model else None,
        "layer": int(layer[1]) if layer else None,
        "submodule_name": origin.hook,
        **({"k": sae.sparsify.k} if isinstance(sae.sparsify, Choice) else {}),
    }
    length = {"ctx_len": origin.more["context_size"]} if "context_size" in origin.more else {}
    return {"trainer": trainer, "buffer": {"d_submodule": sae.d_model, "io": "out", **length}}
