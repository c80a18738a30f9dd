"""Lists of features: ordered, filtered, walked. All by columns [F] that lie in memory."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.errors import UsageError

SORTS = ("interest", "feature", "density", "mean", "max", "cosine")


class Keep(NamedTuple):
    """Which features a list keeps; all by default."""

    density: tuple[float, float] = (0.0, 1.0)
    """of at least, and at most, that density"""
    alive: bool | None = None
    """those that fired (True), or did not (False)"""
    sign: int = 0
    """with firings above 0 (1), or below (-1)"""
    numbers: Collection[int] | None = None
    """of these numbers, such as those labelled, or stable"""
    box: tuple[float, float, float, float] | None = None
    """on the map from x, to x, from y, to y"""


class Beside(NamedTuple):
    """Where a feature stands in a list."""

    previous: int | None
    """the feature before it, None if it is the first, or not in the list"""
    next: int | None
    """the feature behind it"""
    place: int | None
    """from 0; None if it is not in the list"""
    total: int
    """length of the list"""


class Map(NamedTuple):
    """Directions in a plane."""

    method: str
    """`t-SNE` or `PCA`"""
    places: NDArray
    """[F, 2] between -1 and 1, nan for features that did not fire"""


def order(arrays: Mapping[str, NDArray], sort: str, descending: bool, keep: Keep) -> NDArray:
    """Numbers of the features that are kept, ordered by `sort`, of |value| where it has a sign;
    ties ascend, and what never fired comes last unless numbers are sorted.

    Raises UsageError for another sort, and for a box without a map.
    """
    if sort not in SORTS:
        raise UsageError(f"no sort {sort!r}; there are {', '.join(SORTS)}")
    kept = np.flatnonzero(kept_F(arrays, keep))
    if sort == "feature":
        return kept[::-1] if descending else kept
    name = "cosine/0" if sort == "cosine" else sort
    key_F = np.abs(arrays[name]) if name in arrays else np.zeros(len(arrays["fired"]))
    key_K = key_F[kept].astype(np.float64)
    unseen_K = arrays["fired"][kept] == 0
    return kept[np.lexsort((kept, -key_K if descending else key_K, unseen_K))]


def kept_F(arrays: Mapping[str, NDArray], keep: Keep) -> NDArray:
    """[F] bool: which features a list keeps."""
    fired_F, density_F, positive_F = (arrays[key] for key in ("fired", "density", "positive"))
    mask_F = (density_F >= keep.density[0]) & (density_F <= keep.density[1])
    if keep.alive is not None:
        mask_F &= (fired_F > 0) == keep.alive
    if keep.sign:
        mask_F &= (fired_F > 0) & (positive_F > 0 if keep.sign > 0 else positive_F < 1)
    if keep.numbers is not None:
        among_F = np.zeros(len(fired_F), bool)
        numbers = np.array([*keep.numbers], np.int64)
        among_F[numbers[(numbers >= 0) & (numbers < len(fired_F))]] = True
        mask_F &= among_F
    if keep.box is not None:
        if "map" not in arrays:
            raise UsageError("this index has no map: `saelab index RUN --map` makes one")
        left, right, bottom, top = keep.box
        x_F, y_F = arrays["map"].T
        mask_F &= (x_F >= left) & (x_F <= right) & (y_F >= bottom) & (y_F <= top)
    return mask_F


def beside(feature: int, order: NDArray) -> Beside:
    """A feature's place in a list, and who stands before and behind it."""
    places = np.flatnonzero(order == feature)
    if not len(places):
        return Beside(None, None, None, len(order))
    place = int(places[0])
    previous = int(order[place - 1]) if place else None
    following = int(order[place + 1]) if place + 1 < len(order) else None
    return Beside(previous, following, place, len(order))
