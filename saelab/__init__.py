"""saelab: a mechanistic-interpretability workbench built on sparse autoencoders."""

from saelab.code import Code
from saelab.sae import SAE
from saelab.sparsify import Choice, Threshold

__all__ = ["SAE", "Choice", "Code", "Threshold"]
