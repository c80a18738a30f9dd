"""Models of images read from a folder, with the head that classifies where there is one."""

from typing import Any, NamedTuple

import torch

from saelab.files import read_object
from saelab.models.encoders import Encoder
from saelab.models.model import Located
from saelab.models.weights import Reader

CLASSIFIER = "ForImageClassification"  # end of the class's name of a model with such a head
TOWERS = {"clip": "CLIPVisionModel", "siglip": "SiglipVisionModel"}  # of models of texts too


def reader(located: Located) -> Reader:
    """What reads the weights of a model of images."""
    import transformers

    kind = read_object(located.folder / "config.json").get("model_type", "")
    auto = getattr(transformers, TOWERS.get(kind, "AutoModel"))
    return Reader(_Unpooled(auto), located.name)


class _Unpooled(NamedTuple):
    """A class of transformers, asked for a model without what pools its positions, which some
    folders lack and nothing here reads."""

    auto: Any

    def from_pretrained(self, folder: Any, *args: Any, **options: Any) -> Any:
        try:
            return self.auto.from_pretrained(folder, *args, add_pooling_layer=False, **options)
        except TypeError:  # a class that pools always, or never
            return self.auto.from_pretrained(folder, *args, **options)


def load(located: Located, device: str, dtype: str) -> Encoder:
    """A model of images in a folder, its weights read whole."""
    weights = reader(located)
    plain = weights.from_pretrained(located.folder, dtype=getattr(torch, dtype)).to(device)
    plain = plain.eval().requires_grad_(False)
    return Encoder(plain, located, weights, _classifier(located, plain))


def _classifier(located: Located, plain: Any) -> Any:
    """The model whose head classifies what `plain` gives; None for a folder without such a head."""
    import transformers

    (kind, *_) = read_object(located.folder / "config.json").get("architectures") or [""]
    if not kind.endswith(CLASSIFIER):
        return None
    head = Reader(transformers.AutoModelForImageClassification, located.name)
    whole = head.from_pretrained(located.folder, dtype=plain.dtype).to(plain.device)
    if type(getattr(whole, whole.base_model_prefix, None)) is not type(plain):
        return None  # it classifies what is not the model's last hidden state
    setattr(whole, whole.base_model_prefix, plain)
    return whole.eval().requires_grad_(False)
