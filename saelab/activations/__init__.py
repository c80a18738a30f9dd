"""Activations of a model on disk: capture writes a cache, training and analysis read it."""

from saelab.activations.cache import Cache
from saelab.activations.moments import Moments
from saelab.activations.records import Contexts, Tokens

__all__ = ["Cache", "Contexts", "Moments", "Tokens"]
