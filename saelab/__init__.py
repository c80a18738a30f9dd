"""saelab: a mechanistic-interpretability workbench built on sparse autoencoders."""

from saelab.code import Code
from saelab.sae import SAE
from saelab.sparsify import Choice, Threshold

__version__ = "0.1.0"

__all__ = ["SAE", "Choice", "Code", "Threshold"]
