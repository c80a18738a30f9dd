"""What scenes are made of: objects as arrangements of parts, and the concepts that pixels are
labelled with. In each kind the first is the most frequent, by Zipf's law."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.scenes.surfaces import MATERIALS, TEXTURES


class Part(NamedTuple):
    """A part of an object, in the object's own square [-1, 1] x [-1, 1], y downwards."""

    name: str
    """the concept, such as `wheel`"""
    shape: str
    """row of SHAPES"""
    x: float
    """centre"""
    y: float
    """centre"""
    width: float
    """half of it"""
    height: float
    """half of it"""
    material: str
    """that it is mostly made of"""
    texture: str
    """that it mostly has"""


OBJECTS: dict[str, tuple[Part, ...]] = {
    "house": (
        Part("wall", "box", 0, 0.4, 0.72, 0.55, "stone", "bricks"),
        Part("roof", "triangle", 0, -0.5, 0.95, 0.42, "clay", "stripes"),
        Part("door", "box", 0.2, 0.58, 0.25, 0.37, "wood", "plain"),
    ),
    "tree": (
        Part("trunk", "box", 0, 0.6, 0.2, 0.4, "wood", "grain"),
        Part("crown", "disc", 0, -0.25, 0.75, 0.65, "leaf", "dots"),
    ),
    "car": (
        Part("cabin", "dome", 0, -0.4, 0.55, 0.3, "glass", "plain"),
        Part("chassis", "box", 0, 0.15, 0.98, 0.3, "metal", "plain"),
        Part("wheel", "disc", -0.55, 0.5, 0.3, 0.3, "rubber", "rings"),
        Part("wheel", "disc", 0.55, 0.5, 0.3, 0.3, "rubber", "rings"),
    ),
    "flower": (
        Part("stem", "box", 0, 0.6, 0.17, 0.4, "leaf", "plain"),
        Part("petals", "petals", 0, -0.25, 0.72, 0.72, "cloth", "stripes"),
        Part("eye", "disc", 0, -0.25, 0.3, 0.3, "gold", "plain"),
    ),
    "boat": (
        Part("sail", "triangle", 0, -0.4, 0.62, 0.55, "cloth", "plain"),
        Part("hull", "bowl", 0, 0.5, 0.95, 0.33, "wood", "stripes"),
    ),
    "fish": (
        Part("fin", "crescent", 0.66, 0, 0.36, 0.6, "clay", "plain"),
        Part("flank", "disc", -0.15, 0, 0.75, 0.45, "gold", "waves"),
        Part("eye", "disc", -0.5, -0.1, 0.24, 0.24, "rubber", "plain"),
    ),
    "cup": (
        Part("handle", "ring", 0.58, 0.1, 0.42, 0.55, "clay", "plain"),
        Part("vessel", "bowl", -0.15, 0.1, 0.65, 0.7, "clay", "zigzag"),
    ),
    "lamp": (
        Part("stem", "box", 0, 0.25, 0.17, 0.5, "metal", "plain"),
        Part("foot", "dome", 0, 0.75, 0.62, 0.25, "metal", "plain"),
        Part("shade", "trapezium", 0, -0.5, 0.72, 0.42, "gold", "mesh"),
    ),
    "tower": (
        Part("wall", "box", 0, 0.3, 0.52, 0.7, "stone", "bricks"),
        Part("battlement", "comb", 0, -0.6, 0.62, 0.3, "stone", "grain"),
        Part("window", "dome", 0, 0.2, 0.28, 0.34, "glass", "plain"),
    ),
    "mushroom": (
        Part("stalk", "box", 0, 0.5, 0.26, 0.5, "stone", "plain"),
        Part("cap", "dome", 0, -0.3, 0.9, 0.45, "clay", "dots"),
    ),
    "clock": (
        Part("rim", "ring", 0, 0, 0.95, 0.95, "gold", "plain"),
        Part("dial", "disc", 0, 0, 0.7, 0.7, "stone", "plain"),
        Part("hand", "cross", 0, 0, 0.5, 0.5, "rubber", "plain"),
    ),
    "hammer": (
        Part("shaft", "box", 0, 0.35, 0.2, 0.65, "wood", "stripes"),
        Part("head", "box", 0, -0.55, 0.7, 0.3, "metal", "plain"),
    ),
    "table": (
        Part("leg", "box", -0.7, 0.45, 0.22, 0.5, "wood", "plain"),
        Part("leg", "box", 0.7, 0.45, 0.22, 0.5, "wood", "plain"),
        Part("board", "box", 0, -0.25, 1.0, 0.25, "wood", "checks"),
    ),
    "kite": (
        Part("ribbon", "comb", 0, 0.72, 0.42, 0.28, "cloth", "checks"),
        Part("canopy", "star", 0, -0.25, 0.8, 0.75, "cloth", "checks"),
    ),
}
GROUNDS = ("sky", "floor")  # objects without parts, behind all others
SKIES, FLOORS = ("water", "glass", "cloth"), ("leaf", "wood", "stone", "clay")
KINDS = ("object", "part", "texture", "material")
PARTS = tuple(dict.fromkeys(part.name for parts in OBJECTS.values() for part in parts))
NAMES: dict[str, tuple[str, ...]] = {
    "object": (*GROUNDS, *OBJECTS),
    "part": PARTS,
    "texture": tuple(TEXTURES),
    "material": tuple(MATERIALS),
}
CONCEPTS = tuple(f"{kind}: {name}" for kind in KINDS for name in NAMES[kind])
FIRST = {kind: sum(len(NAMES[k]) for k in KINDS[:i]) for i, kind in enumerate(KINDS)}


def number(kind: str, name: str) -> int:
    """The place of a concept in CONCEPTS.

    >>> CONCEPTS[number("part", "wheel")]
    'part: wheel'
    """
    return FIRST[kind] + NAMES[kind].index(name)


def zipf(n: int) -> NDArray[np.float64]:
    """[n]: probabilities in inverse proportion to the rank."""
    weights_n = 1 / np.arange(1, n + 1)
    return weights_n / weights_n.sum()
