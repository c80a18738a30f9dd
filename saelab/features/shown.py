"""Which examples an index shows: the contexts of highest peak, and a sample of every quantile band
of the firings; near-duplicates merged.

A pole is a feature, or one sign of a signed feature. Shapes: S examples, P poles, W positions of a
window. Arrays are numpy.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.collect import Contexts
from saelab.features.examples import Examples, join
from saelab.features.groups import place_in_group
from saelab.features.schema import MORE, N_BANDS, N_TOP, PER_BAND, TOP

BEFORE, AFTER = 16, 8  # tokens around a firing that are compared
NEAR = 0.8  # share of them that near-duplicates have in common
BLOCK = 20_000  # examples compared at a time


class Shown(NamedTuple):
    """Examples with what the page says of them, by pole."""

    examples: Examples
    band: NDArray
    """[S] TOP; a band, 0 the weakest; MORE: a place alone"""


def shown(top: Examples, sampled: Examples, contexts: Contexts) -> Shown:
    """The contexts of highest peak, then those of each band, strongest first; what is left over
    is a place alone, from which more are read on demand.

    A pole's sampled firings, ordered by |value|, are cut into N_BANDS equal parts, of each of which
    PER_BAND are shown, the first in the sample's random order. Near-duplicates within the top
    contexts, and within a band, are one; which of the sample are among the top contexts are left
    out.
    """
    all_S = join([top, sampled])
    band_S = np.concatenate([np.full(len(top.pole), TOP), bands(sampled)])
    repeated_S = np.zeros(len(all_S.pole), bool)
    repeated_S[len(top.pole) :] = _among(sampled, top)
    # A band's first ones stand in the sample's order, top contexts by falling peak.
    order = np.lexsort((np.arange(len(band_S)), band_S, all_S.pole))
    order = order[~repeated_S[order]]
    cell_S = all_S.pole[order] * np.int64(N_BANDS + 2) + band_S[order] + 1
    original_S, copies_S = duplicates(all_S, order, cell_S, contexts)
    most = np.where(band_S[order] == TOP, N_TOP, PER_BAND)
    first = np.flatnonzero(original_S)
    place_S = place_in_group(cell_S[first])
    band_O, within = band_S[order[first]], place_S < most[first]
    band_O = np.where(within, band_O, MORE)
    examples = all_S.take(order[first])._replace(copies=copies_S[first].astype(np.int32))
    falling = np.lexsort((-np.abs(examples.value), _rank(band_O), examples.pole))
    band_O = band_O[falling]
    return Shown(examples.take(falling).without_pairs(band_O == MORE), band_O)


def _rank(band_S: NDArray) -> NDArray:
    """Top contexts first, then the strongest band, places last."""
    return np.where(band_S == TOP, -N_BANDS, np.where(band_S == MORE, 1, -band_S))


def bands(sampled: Examples) -> NDArray:
    """[S]: the band of each sampled firing, 0 the weakest."""
    order = np.lexsort((np.abs(sampled.value), sampled.pole))
    pole_S = sampled.pole[order]
    count_S = np.bincount(pole_S)[pole_S] if len(pole_S) else pole_S
    band_S = np.empty(len(order), np.int64)
    band_S[order] = place_in_group(pole_S) * N_BANDS // np.maximum(count_S, 1)
    return band_S


def _among(sampled: Examples, top: Examples) -> NDArray:
    """[S]: whether a sampled firing is one of the top contexts' peaks."""
    kind = np.dtype([("pole", "<i4"), ("context", "<i4"), ("position", "<i4")])
    keys = []
    for part in (sampled, top):
        rows = np.empty(len(part.pole), kind)
        for name in kind.names or ():
            rows[name] = getattr(part, name)
        keys.append(rows.view("V12"))
    return np.isin(*keys)


def duplicates(
    all_S: Examples, order: NDArray, cell_S: NDArray, contexts: Contexts
) -> tuple[NDArray, NDArray]:
    """For examples of ascending cells: (whether each is the first of its near-duplicates within
    its cell, how many it then stands for).

    Near-duplicates share at least NEAR of the tokens from BEFORE before the firing to AFTER behind
    it; each is compared with the firsts before it.
    """
    place_S = place_in_group(cell_S)
    first_S = np.ones(len(cell_S), bool)
    copies_S = all_S.copies[order].astype(np.int64)
    # Blocks end with a cell.
    edges = np.append(np.flatnonzero(place_S == 0), len(cell_S))
    edges = edges[np.append(np.flatnonzero(np.diff(edges // BLOCK)), len(edges) - 1)]
    for start, end in zip(np.append(0, edges[:-1]), edges, strict=True):
        part = slice(start, end)
        window_SW = _windows(all_S, order[part], contexts)
        _mark(window_SW, place_S[part], first_S[part], copies_S[part])
    return first_S, copies_S


def _mark(window_SW: NDArray, place_S: NDArray, first_S: NDArray, copies_S: NDArray) -> None:
    """Within cells, which follow each other: write who is not the first, and add up copies."""
    for place in range(1, int(place_S.max(initial=0)) + 1):
        later = np.flatnonzero(place_S == place)
        for back in range(place, 0, -1):
            earlier = later - back
            same = (window_SW[later] == window_SW[earlier]).mean(1) >= NEAR
            # Who is another's copy already stands for nobody, and is not counted twice.
            same &= first_S[later] & first_S[earlier]
            first_S[later[same]] = False
            np.add.at(copies_S, earlier[same], copies_S[later[same]])


def _windows(all_S: Examples, order: NDArray, contexts: Contexts) -> NDArray:
    """[S, W] the tokens around each firing; beyond the context's ends -1."""
    position_SW = all_S.position[order][:, None] + np.arange(-BEFORE, AFTER + 1)
    length = contexts.tokens.shape[1]
    inside_SW = (position_SW >= 0) & (position_SW < length)
    token_SW = contexts.tokens[all_S.context[order][:, None], np.clip(position_SW, 0, length - 1)]
    return np.where(inside_SW, token_SW, np.int32(-1))
