"""Shapes of parts: which points of a part's own square [-1, 1] x [-1, 1] lie inside, y downwards.

Shapes: H x W the window that is drawn.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Field = NDArray[np.floating]
Mask = NDArray[np.bool_]


def disc(x_HW: Field, y_HW: Field) -> Mask:
    return x_HW**2 + y_HW**2 < 1


def box(x_HW: Field, y_HW: Field) -> Mask:
    return (abs(x_HW) < 1) & (abs(y_HW) < 1)


def triangle(x_HW: Field, y_HW: Field) -> Mask:
    return (abs(y_HW) < 1) & (abs(x_HW) < (1 + y_HW) / 2)


def ring(x_HW: Field, y_HW: Field) -> Mask:
    square_HW = x_HW**2 + y_HW**2
    return (square_HW < 1) & (square_HW > 0.3)


def dome(x_HW: Field, y_HW: Field) -> Mask:
    return (abs(y_HW) < 1) & (x_HW**2 + (y_HW / 2 - 0.5) ** 2 < 1)


def bowl(x_HW: Field, y_HW: Field) -> Mask:
    return dome(x_HW, -y_HW)


def trapezium(x_HW: Field, y_HW: Field) -> Mask:
    return (abs(y_HW) < 1) & (abs(x_HW) < 0.75 + y_HW / 4)


def star(x_HW: Field, y_HW: Field) -> Mask:
    points_HW = 0.72 + 0.28 * np.cos(5 * np.arctan2(x_HW, -y_HW))
    return np.hypot(x_HW, y_HW) < points_HW


def cross(x_HW: Field, y_HW: Field) -> Mask:
    wide_HW = (abs(x_HW) < 0.38) | (abs(y_HW) < 0.38)
    return box(x_HW, y_HW) & wide_HW


def petals(x_HW: Field, y_HW: Field) -> Mask:
    lobes_HW = 0.75 + 0.25 * np.cos(6 * np.arctan2(x_HW, y_HW))
    return np.hypot(x_HW, y_HW) < lobes_HW


def crescent(x_HW: Field, y_HW: Field) -> Mask:
    return disc(x_HW, y_HW) & ((x_HW - 0.55) ** 2 + y_HW**2 > 0.6)


def comb(x_HW: Field, y_HW: Field) -> Mask:
    return box(x_HW, y_HW) & ((y_HW > 0) | (np.cos(2.5 * np.pi * x_HW) > 0))


SHAPES: dict[str, Callable[[Field, Field], Mask]] = {
    shape.__name__: shape
    for shape in (
        *(disc, box, triangle, ring, dome, bowl),
        *(trapezium, star, cross, petals, crescent, comb),
    )
}
