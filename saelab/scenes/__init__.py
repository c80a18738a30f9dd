"""A world with truth: labelled scenes drawn by code, from a seed."""

from saelab.scenes.drawing import NOTHING, SIZE, Scene, scene
from saelab.scenes.labels import PATCH, PatchLabels, of_pixels, patch_labels
from saelab.scenes.vocabulary import CONCEPTS, KINDS

__all__ = [
    "CONCEPTS",
    "KINDS",
    "NOTHING",
    "PATCH",
    "SIZE",
    "PatchLabels",
    "Scene",
    "of_pixels",
    "patch_labels",
    "scene",
]
