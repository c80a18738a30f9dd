"""Tiny vision models with random weights, one of each kind that is read, as folders."""

from pathlib import Path
from typing import Any

import torch

SIZE, PATCH = 16, 4
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": SIZE,
    "patch_size": PATCH,
}
# Class of the model: how many positions stand before its patches.
KINDS = {
    "ViTModel": 1,
    "Dinov2Model": 1,
    "Dinov2WithRegistersModel": 5,
    "CLIPVisionModel": 1,
    "SiglipVisionModel": 0,
}


def folder(kind: str, at: Path, **changes: Any) -> Path:
    """A model of a kind, and the image processor that its family has."""
    import transformers

    torch.manual_seed(0)
    config = getattr(transformers, kind.removesuffix("Model") + "Config")(**SHAPE | changes)
    getattr(transformers, kind)(config).eval().save_pretrained(at)
    size = changes.get("image_size", SIZE)
    options: dict[str, Any] = {"size": {"height": size, "width": size}}
    name = "SiglipImageProcessor" if "Siglip" in kind else "ViTImageProcessor"
    if "CLIP" in kind:
        name, options = "CLIPImageProcessor", {"size": {"shortest_edge": size}}
        options["crop_size"] = {"height": size, "width": size}
    getattr(transformers, name)(**options).save_pretrained(at)
    return at


def noise(at: Path, n: int, seed: int = 0) -> Path:
    """A folder of n images of noise, of the models' size."""
    import numpy as np
    from PIL import Image

    at.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for number in range(n):
        pixels = rng.integers(0, 256, (SIZE, SIZE, 3), np.uint8)
        Image.fromarray(pixels).save(at / f"{number:02}.png")
    return at
