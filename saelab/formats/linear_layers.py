"""Single .pt files of two linear layers and a ReLU: Goodfire's and DeepSeek-R1's; and Qwen Scope's
TopK. What they read stands in no file, only in their names.

Shapes: F features, D width.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

from saelab.errors import UsageError
from saelab.formats import tensors
from saelab.formats.matrices import Matrix
from saelab.formats.published import Published
from saelab.origin import Identity, Origin
from saelab.sparsify import Choice, Sparsify, Threshold


class Keys(NamedTuple):
    """What a form calls its tensors."""

    encoder: str
    b_enc: str
    decoder: str
    """[D, F]"""
    b_dec: str


GOODFIRE = Keys(
    "encoder_linear.weight", "encoder_linear.bias", "decoder_linear.weight", "decoder_linear.bias"
)
DEEPSEEK = Keys("encoder.weight", "encoder.bias", "decoder.weight", "decoder.bias")
QWEN = Keys("W_enc", "b_enc", "W_dec", "b_dec")
GOODFIRE_NAME = re.compile(r"(Llama-3[\w.-]*?-Instruct)-SAE-l(\d+)")
DEEPSEEK_NAME = re.compile(r"(?:^|[^a-z])l(?:ayer)?[_-]?(\d+)", re.IGNORECASE)
QWEN_NAME = re.compile(r"SAE-Res-(.+)-W\d+K-L0_(\d+)")
QWEN_FILE = re.compile(r"layer(\d+)\.sae\.pt")


def _has(path: Path, keys: Keys) -> bool:
    return tensors.is_pickle(path) and set(keys) == set(tensors.of_pickle(path))


def recognise_goodfire(path: Path) -> bool:
    """Whether a file is a state dict of Goodfire's names."""
    return _has(path, GOODFIRE)


def recognise_deepseek(path: Path) -> bool:
    """Whether a file is a state dict of an encoder and a decoder with biases, and no folder's
    `ae.pt`."""
    return path.name != "ae.pt" and _has(path, DEEPSEEK)


def recognise_qwen(path: Path) -> bool:
    """Whether a file is `layerN.sae.pt` with these tensors."""
    return bool(QWEN_FILE.fullmatch(path.name)) and _has(path, QWEN)


def read_goodfire(path: Path) -> Published:
    """The SAE of a file."""
    name = GOODFIRE_NAME.search(str(path))
    place = (f"meta-llama/{name[1]}", f"blocks.{name[2]}.hook_resid_post") if name else ("", "")
    return _relu(path, GOODFIRE, "goodfire", *place)


def read_deepseek(path: Path) -> Published:
    """The SAE of a file."""
    layer = DEEPSEEK_NAME.search(path.name)
    hook = f"blocks.{layer[1]}.hook_resid_post" if layer else ""
    model = "deepseek-ai/DeepSeek-R1" if "deepseek" in str(path).lower() else ""
    return _relu(path, DEEPSEEK, "deepseek", model, hook)


def _relu(path: Path, keys: Keys, form: str, model: str, hook: str) -> Published:
    origin = _origin(path, form, model, hook, sparsify="relu")
    return _published(path, keys, Threshold(), origin)


def read_qwen(path: Path) -> Published:
    """The SAE of a file, whose k only the folder's name says. Raises UsageError where it does
    not."""
    name, file = QWEN_NAME.search(str(path)), QWEN_FILE.fullmatch(path.name)
    assert file is not None
    if name is None:
        raise UsageError(
            f"{path} does not say how many features a token has: keep it in a folder named as its "
            "repository, such as SAE-Res-Qwen3-1.7B-Base-W32K-L0_50"
        )
    k, hook = int(name[2]), f"blocks.{file[1]}.hook_resid_post"
    origin = _origin(path, "qwen_scope", f"Qwen/{name[1]}", hook, sparsify="topk", k=k)
    return _published(path, QWEN, Choice(k), origin)


def _published(path: Path, keys: Keys, form: Sparsify, origin: Origin) -> Published:
    held = tensors.of_pickle(path)
    return Published(
        Matrix(held[keys.encoder]),
        held[keys.b_enc],
        Matrix(held[keys.decoder], transposed=True),
        held[keys.b_dec],
        form,
        centred=False,
        origin=origin,
    )


def _origin(path: Path, form: str, model: str, hook: str, **more: Any) -> Origin:
    identity = Identity(model) if model else None
    return Origin(hook=hook, model=identity, source=str(path), format=form, **more)
