"""Which examples an index shows: the contexts of highest peak, and a sample of every quantile band
of the firings; near-duplicates merged.

A pole is a feature, or one sign of a signed feature. Shapes: S examples, P poles, W positions of a
window. Arrays are numpy.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.features.collect import Contexts
from saelab.features.examples import NONE, Examples, join
from saelab.features.groups import place_in_group
from saelab.features.schema import MORE, N_BANDS, N_TOP, PER_BAND, TOP

BEFORE, AFTER = 16, 8  # tokens around a firing that are compared
NEAR = 0.8  # share of them that near-duplicates have in common


class Shown(NamedTuple):
    """Examples with what the page says of them, by pole."""

    examples: Examples
    band: NDArray
    """[S] TOP; a band, 0 the weakest; MORE: a place alone"""


def shown(top: list[Examples], sampled: list[Examples], contexts: Contexts) -> Iterator[Shown]:
    """What is shown of every block of poles; see `of_block`. The blocks are emptied on the way, as
    all of them and what is made of them would be twice as much."""
    for number in range(len(top)):
        block = of_block(top[number], sampled[number], contexts)
        top[number] = sampled[number] = NONE
        yield block


def of_block(top: Examples, sampled: Examples, contexts: Contexts) -> Shown:
    """The contexts of highest peak, then those of each band, strongest first; what is left over of
    the sample is a place alone, from which more are read on demand.

    A pole's sampled firings, ordered by |value|, are cut into N_BANDS equal parts, of each of which
    PER_BAND are shown, the first in the sample's random order. Near-duplicates within the top
    contexts, and within a band, are one; which of the sample are among the top contexts are left
    out.
    """
    top, _ = _merged(top, top.pole, contexts)
    top = top.take(np.flatnonzero(place_in_group(top.pole) < N_TOP))
    # The bands are cut over the whole sample, before its top contexts leave it.
    band_S = bands(sampled)
    fresh = np.flatnonzero(~_among(sampled, top))
    # A stable order: within a band the sample stays in its random one.
    cell_S = sampled.pole[fresh] * np.int64(N_BANDS) + band_S[fresh]
    order = np.argsort(cell_S, kind="stable")
    across, cell_S = _merged(sampled.take(fresh[order]), cell_S[order], contexts)
    band_S = cell_S % N_BANDS
    band_S[place_in_group(cell_S) >= PER_BAND] = MORE
    all_S = join([top, across])
    band_S = np.append(np.full(len(top.pole), TOP), band_S)
    falling = np.lexsort((-np.abs(all_S.value), _rank(band_S), all_S.pole))
    band_S = band_S[falling]
    return Shown(all_S.take(falling).without_pairs(band_S == MORE), band_S)


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


def _merged(all_S: Examples, cell_S: NDArray, contexts: Contexts) -> tuple[Examples, NDArray]:
    """Examples of ascending cells without near-duplicates, of which the first of a cell stands for
    the others; and their cells.

    Near-duplicates share at least NEAR of the tokens from BEFORE before the firing to AFTER behind
    it; each is compared with the firsts before it.
    """
    place_S = place_in_group(cell_S)
    first_S = np.ones(len(cell_S), bool)
    copies_S = all_S.copies.astype(np.int64)
    window_SW = _windows(all_S.position, all_S.context, contexts)
    _mark(window_SW, place_S, first_S, copies_S)
    kept = np.flatnonzero(first_S)
    merged = all_S.take(kept)._replace(copies=copies_S[kept].astype(np.int32))
    return merged, cell_S[kept]


def _mark(window_SW: NDArray, place_S: NDArray, first_S: NDArray, copies_S: NDArray) -> None:
    """Within cells, which follow each other: write who is not the first, and add up copies."""
    for place in range(1, int(place_S.max(initial=0)) + 1):
        later = np.flatnonzero(place_S == place)
        for back in range(place, 0, -1):
            earlier = later - back
            one_SW, other_SW = window_SW[later], window_SW[earlier]
            there_SW = (one_SW >= 0) | (other_SW >= 0)
            common_S = ((one_SW == other_SW) & there_SW).sum(1)
            same = common_S >= NEAR * there_SW.sum(1)
            # Who is another's copy already stands for nobody, and is not counted twice.
            same &= first_S[later] & first_S[earlier]
            first_S[later[same]] = False
            np.add.at(copies_S, earlier[same], copies_S[later[same]])


def _windows(position_S: NDArray, context_S: NDArray, contexts: Contexts) -> NDArray:
    """[S, W] the tokens around each firing; beyond the context's ends -1."""
    position_SW = position_S[:, None] + np.arange(-BEFORE, AFTER + 1)
    length = contexts.tokens.shape[1]
    inside_SW = (position_SW >= 0) & (position_SW < length)
    token_SW = contexts.tokens[context_S[:, None], np.clip(position_SW, 0, length - 1)]
    return np.where(inside_SW, token_SW, np.int32(-1))
