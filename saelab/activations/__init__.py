"""Activations of a model on disk: capture writes a cache, training and analysis read it."""

from saelab.activations.cache import Cache, Contexts, Moments

__all__ = ["Cache", "Contexts", "Moments"]
