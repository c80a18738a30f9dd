"""Surfaces: textures, which are patterns of two colours, and materials, which are colours and how
they answer to light.

Shapes: H x W the window that is drawn.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

Field = NDArray[np.floating]


def plain(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return np.zeros_like(x_HW)


def stripes(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return (np.sin(x_HW) > 0).astype(np.float32)


def checks(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return (np.sin(x_HW) * np.sin(y_HW) > 0).astype(np.float32)


def dots(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return (np.cos(x_HW) + np.cos(y_HW) > 0.75).astype(np.float32)


def waves(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return np.float32(0.5) + np.sin(x_HW + 1.5 * np.sin(y_HW / 2)) / 2


def bricks(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    row_HW = np.floor(y_HW / np.pi)
    across_HW = np.mod(x_HW / 2 + np.pi * np.mod(row_HW, 2), 2 * np.pi)
    mortar_HW = (np.mod(y_HW, np.pi) < 0.8) | (across_HW < 0.5)
    return mortar_HW.astype(np.float32)


def rings(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return (np.sin(np.hypot(x_HW, y_HW)) > 0).astype(np.float32)


def zigzag(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    teeth_HW = abs(np.mod(y_HW / np.pi, 2) - 1) * np.pi
    return (np.sin(x_HW + teeth_HW) > 0).astype(np.float32)


def mesh(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    lines_HW = (np.cos(x_HW) > 0.75) | (np.cos(y_HW) > 0.75)
    return lines_HW.astype(np.float32)


def grain(x_HW: Field, y_HW: Field, rng: Generator) -> Field:
    return rng.random(x_HW.shape, dtype=np.float32)


TEXTURES: dict[str, Callable[[Field, Field, Generator], Field]] = {
    texture.__name__: texture
    for texture in (
        *(plain, stripes, grain, dots, checks),
        *(mesh, waves, bricks, zigzag, rings),
    )
}  # the most frequent first


class Material(NamedTuple):
    """A kind of stuff."""

    hue: float
    """0 to 1 around the colour circle"""
    hue_spread: float
    """how far the hue of a piece may lie from it"""
    saturation: float
    """0 grey, 1 pure"""
    brightness: float
    """of the colour in full light, 0 to 1"""
    gloss: float
    """strength of the highlight"""
    opacity: float
    """share of the light that does not come through from behind"""


MATERIALS: dict[str, Material] = {
    "stone": Material(0.08, 0.03, 0.08, 0.50, 0.0, 1.0),
    "wood": Material(0.07, 0.02, 0.62, 0.52, 0.0, 1.0),
    "leaf": Material(0.33, 0.04, 0.65, 0.55, 0.1, 1.0),
    "water": Material(0.60, 0.03, 0.70, 0.72, 0.3, 1.0),
    "clay": Material(0.02, 0.02, 0.68, 0.72, 0.0, 1.0),
    "metal": Material(0.58, 0.03, 0.12, 0.72, 0.8, 1.0),
    "cloth": Material(0.80, 0.04, 0.55, 0.62, 0.0, 1.0),
    "glass": Material(0.48, 0.02, 0.35, 0.92, 0.6, 0.6),
    "gold": Material(0.14, 0.01, 0.85, 0.88, 0.7, 1.0),
    "rubber": Material(0.70, 0.10, 0.15, 0.17, 0.2, 1.0),
}  # the most frequent first


def colour(material: Material, rng: Generator) -> NDArray[np.float32]:
    """[3]: red, green and blue, 0 to 1, of a piece of the material."""
    hue = material.hue + material.hue_spread * rng.uniform(-1, 1)
    value = material.brightness * rng.uniform(0.9, 1.1)
    saturation = material.saturation * rng.uniform(0.9, 1.1)
    # The usual formula from hue, saturation and value.
    turned_3 = np.mod(np.array([5.0, 3.0, 1.0]) + 6 * hue, 6)
    part_3 = np.clip(np.minimum(turned_3, 4 - turned_3), 0, 1)
    return np.clip(value * (1 - saturation * part_3), 0, 1).astype(np.float32)
