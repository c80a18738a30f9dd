"""Scenes drawn by code: objects of parts, each of a material and with a texture, that hide one
another and throw shadows in the scene's light; every pixel knows what it shows.

Shapes: H x W pixels, h x w the window of an object, K kinds of label (KINDS).
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from saelab.errors import UsageError
from saelab.scenes.shapes import SHAPES, Field, Mask
from saelab.scenes.surfaces import MATERIALS, TEXTURES, colour
from saelab.scenes.vocabulary import (
    FLOORS,
    KINDS,
    NAMES,
    OBJECTS,
    SKIES,
    Part,
    number,
    zipf,
)

SIZE = 96  # pixels a side
NOTHING = -1  # label of a pixel that shows no concept of a kind
LEAST, MOST = 2, 5  # objects of a scene
USUAL = 0.5  # share of parts that have their usual material, and texture
HALF = (0.2, 0.36)  # half an object's side, as parts of the image's
PERIOD = (5.0, 8.0)  # pixels from one repetition of a texture to the next, of SIZE
AMBIENT, SHADOW = 0.75, 0.7  # light without the lamp; what is left of it in a shadow


class Scene(NamedTuple):
    """A picture and what it shows."""

    image: NDArray[np.uint8]
    """[H, W, 3]: red, green, blue"""
    labels: NDArray[np.int16]
    """[H, W, K]: by kind of KINDS the place in CONCEPTS, or NOTHING"""


class _Light(NamedTuple):
    x: float
    y: float
    strength: float


class _Canvas(NamedTuple):
    image: NDArray[np.float32]
    labels: NDArray[np.int16]
    light: _Light
    unit: float  # pixels in one of a picture of SIZE

    @property
    def size(self) -> int:
        return len(self.image)


def scene(index: int, seed: int = 0, size: int = SIZE) -> Scene:
    """The scene of an index: the same at every call, whatever was drawn before.

        image_HWC, labels_HWK = scene(7)
        CONCEPTS[labels_HWK[48, 48, 0]]  # 'object: house'

    Raises UsageError for a size of fewer than 16 pixels.
    """
    if size < 16:
        raise UsageError(f"size={size} is too small for a scene: 16 pixels are the least")
    rng = np.random.default_rng([seed, index])
    angle = rng.uniform(0, 2 * math.pi)
    light = _Light(math.cos(angle), math.sin(angle), rng.uniform(0.1, 0.35))
    canvas = _Canvas(
        np.empty((size, size, 3), np.float32),
        np.full((size, size, len(KINDS)), NOTHING, np.int16),
        light,
        size / SIZE,
    )
    _grounds(canvas, rng)
    names = list(OBJECTS)
    drawn = rng.choice(len(names), rng.integers(LEAST, MOST + 1), p=zipf(len(names)))
    for which in drawn:
        _object(canvas, names[which], rng)
    noisy = canvas.image + rng.normal(0, 0.012, canvas.image.shape).astype(np.float32)
    return Scene((np.clip(noisy, 0, 1) * 255).astype(np.uint8), canvas.labels)


def _grounds(canvas: _Canvas, rng: Generator) -> None:
    """Sky above the horizon, floor below."""
    size = canvas.size
    horizon = int(size * rng.uniform(0.35, 0.65))
    y_HW, x_HW = np.mgrid[:size, :size].astype(np.float32)
    for name, rows, kinds in (
        ("sky", slice(0, horizon), SKIES),
        ("floor", slice(horizon, size), FLOORS),
    ):
        material, texture = str(rng.choice(kinds, p=zipf(len(kinds)))), _drawn("texture", rng)
        pixels = _painted(x_HW[rows], y_HW[rows], canvas.unit, material, texture, rng)
        canvas.image[rows] = 0.85 * pixels
        said = number("object", name), number("texture", texture), number("material", material)
        canvas.labels[rows][..., [0, 2, 3]] = said


def _object(canvas: _Canvas, name: str, rng: Generator) -> None:
    """Draw an object with its parts somewhere, above what is there."""
    size = canvas.size
    half = size * rng.uniform(*HALF)
    x, y = (size * rng.uniform(0.12, 0.88) for _ in range(2))
    tilt, mirror = rng.normal(0, 0.12), 1.0 if rng.random() < 0.5 else -1.0
    reach = 1.3 * half
    rows = slice(max(0, int(y - reach)), min(size, int(y + reach) + 1))
    columns = slice(max(0, int(x - reach)), min(size, int(x + reach) + 1))
    y_hw, x_hw = np.mgrid[rows, columns].astype(np.float32)
    y_hw, x_hw = (y_hw - y) / half, (x_hw - x) / half
    cos, sin = math.cos(tilt), math.sin(tilt)
    across_hw, down_hw = mirror * (cos * x_hw + sin * y_hw), cos * y_hw - sin * x_hw
    window = canvas._replace(image=canvas.image[rows, columns], labels=canvas.labels[rows, columns])
    _shadow(window, OBJECTS[name], across_hw, down_hw, mirror)
    surfaces: dict[str, tuple[str, str]] = {}  # parts of one name are alike
    for part in OBJECTS[name]:
        if part.name not in surfaces:
            surfaces[part.name] = _drawn_of(part, rng)
        _part(window, name, part, surfaces[part.name], (across_hw, down_hw), half, rng)


def _inside(part: Part, x_hw: Field, y_hw: Field) -> Mask:
    """Which pixels a part covers."""
    return SHAPES[part.shape]((x_hw - part.x) / part.width, (y_hw - part.y) / part.height)


def _shadow(
    canvas: _Canvas, parts: tuple[Part, ...], x_hw: Field, y_hw: Field, mirror: float
) -> None:
    """Darken what lies behind an object on the side away from the lamp."""
    light = canvas.light
    for part in parts:
        inside_hw = _inside(part, x_hw + 0.12 * mirror * light.x, y_hw + 0.12 * light.y)
        canvas.image[inside_hw] *= SHADOW


def _part(
    canvas: _Canvas,
    name: str,
    part: Part,
    surface: tuple[str, str],
    place: tuple[Field, Field],
    half: float,
    rng: Generator,
) -> None:
    """Draw a part: its N pixels in the scene's light, and what they are."""
    inside_hw = _inside(part, *place)
    x_N, y_N = (each[inside_hw] for each in place)
    material, texture = surface
    pixels_N3 = _painted(x_N * half, y_N * half, canvas.unit, material, texture, rng)
    u_N, v_N = (x_N - part.x) / part.width, (y_N - part.y) / part.height
    stuff, light = MATERIALS[material], canvas.light
    lit_N = 1 + light.strength * (light.x * u_N + light.y * v_N) / AMBIENT
    # The highlight lies towards the lamp, as on a ball.
    far_N = (u_N - 0.4 * light.x) ** 2 + (v_N - 0.4 * light.y) ** 2
    shine_N = 0.6 * stuff.gloss * np.exp(-far_N / 0.12)
    shown_N3 = pixels_N3 * lit_N[:, None] + shine_N[:, None]
    behind_N3 = canvas.image[inside_hw]
    canvas.image[inside_hw] = stuff.opacity * shown_N3 + (1 - stuff.opacity) * behind_N3
    said = zip(KINDS, (name, part.name, texture, material), strict=True)
    canvas.labels[inside_hw] = [number(kind, which) for kind, which in said]


def _painted(x: Field, y: Field, unit: float, material: str, texture: str, rng: Generator) -> Field:
    """[..., 3]: a texture in two shades of a material at points in pixels; unit: pixels in one of
    PERIOD's."""
    angle, period = rng.uniform(0, math.pi), rng.uniform(*PERIOD) * unit
    if texture == "bricks":
        angle = 0.0  # walls stand upright
    turn = 2 * math.pi / period
    cos, sin = turn * math.cos(angle), turn * math.sin(angle)
    pattern = TEXTURES[texture](cos * x + sin * y, cos * y - sin * x, rng)
    base_3 = colour(MATERIALS[material], rng)
    factor = 0.5 if base_3.mean() > 0.35 else 1.8
    second_3 = np.clip(base_3 * factor, 0, 1)
    return base_3 + pattern[..., None] * (second_3 - base_3)


def _drawn(kind: str, rng: Generator) -> str:
    """A name of a kind, by Zipf's law."""
    names = NAMES[kind]
    return names[rng.choice(len(names), p=zipf(len(names)))]


def _drawn_of(part: Part, rng: Generator) -> tuple[str, str]:
    """Material and texture of a part: mostly its usual ones."""
    material = part.material if rng.random() < USUAL else _drawn("material", rng)
    return material, part.texture if rng.random() < USUAL else _drawn("texture", rng)
