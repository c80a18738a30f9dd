"""saelab: a mechanistic-interpretability workbench built on sparse autoencoders."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from saelab.code import Code
    from saelab.sae import SAE
    from saelab.sparsify import Choice, Threshold

__version__ = "0.1.0"

__all__ = ["SAE", "Choice", "Code", "Threshold"]

HOMES = {
    "SAE": "saelab.sae",
    "Choice": "saelab.sparsify",
    "Code": "saelab.code",
    "Threshold": "saelab.sparsify",
}


def __getattr__(name: str) -> Any:
    # The public names are looked up when first used, so that the browser and `saelab --help` start
    # without torch.
    if name not in HOMES:
        raise AttributeError(f"module 'saelab' has no attribute {name!r}")
    return getattr(importlib.import_module(HOMES[name]), name)
