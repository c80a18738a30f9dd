"""Windows: stretches of contexts that a feature fires in or does not, to be shown and to be told
apart.

Shapes: M places, T positions of a context, W windows.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.explaining.corpus import CHOOSE, FIND, HELD_OUT, Corpus, Firings
from saelab.explaining.detection import balanced
from saelab.spelling import Piece, spell
from saelab.statistics import Estimate, weights

LENGTH = 32  # positions
SHOWN, PER_SIDE = 10, 10  # training windows shown; held-out windows with and without firings


class Windows(NamedTuple):
    """W windows of one unit."""

    first: NDArray
    """[W] place of each one's first token"""
    last: NDArray
    """[W] the place behind its last"""
    fires: NDArray
    """[W] whether the unit fires in it"""
    document: NDArray
    """[W] number of the document that it begins in"""


def examples(corpus: Corpus, firings: Firings, unit: int, n: int = SHOWN, seed: int = 0) -> Windows:
    """Training windows in which a unit fires: half of them those of its strongest firings, the
    others drawn from the rest."""
    mine = firings.inside(corpus.places(FIND, CHOOSE))
    kept_N = mine.unit == unit
    number_N = numbered(corpus, mine.place[kept_N])
    order = np.argsort(-mine.value[kept_N], kind="stable")
    _, first_of = np.unique(number_N[order], return_index=True)
    ranked = number_N[order][np.sort(first_of)]
    top, rest = ranked[: n // 2], ranked[n // 2 :]
    drawn = np.random.default_rng([seed, unit]).permutation(rest)[: n - len(top)]
    return _windows(corpus, np.concatenate([top, drawn]), np.ones(len(top) + len(drawn), bool))


def held_out(
    corpus: Corpus, firings: Firings, unit: int, n: int = PER_SIDE, seed: int = 0
) -> Windows:
    """At most n held-out windows in which a unit fires and as many in which it does not, in random
    order; none where it never fires there."""
    places_M = corpus.places(HELD_OUT)
    mine = firings.inside(places_M)
    firing = np.unique(numbered(corpus, mine.place[mine.unit == unit]))
    every = np.unique(numbered(corpus, np.flatnonzero(places_M)))
    rng = np.random.default_rng([seed, unit])
    on = rng.permutation(firing)[:n]
    off = rng.permutation(np.setdiff1d(every, firing))[: len(on)]
    order = rng.permutation(len(on) + len(off))
    numbers = np.concatenate([on, off])[order]
    return _windows(corpus, numbers, (np.arange(len(order)) < len(on))[order])


def numbered(corpus: Corpus, place_N: NDArray) -> NDArray:
    """[N] number of the window of each place: a context has the same number of them, the last cut
    where it ends."""
    length = corpus.tokens.shape[1]
    context_N, position_N = np.divmod(place_N.astype(np.int64), length)
    return context_N * -(-length // LENGTH) + position_N // LENGTH


def _windows(corpus: Corpus, number_W: NDArray, fires_W: NDArray) -> Windows:
    """The windows of some numbers."""
    length = corpus.tokens.shape[1]
    context_W, part_W = np.divmod(number_W, -(-length // LENGTH))
    first_W = context_W * length + part_W * LENGTH
    last_W = np.minimum(first_W + LENGTH, (context_W + 1) * length)
    document_W = corpus.documents.reshape(-1)[first_W]
    return Windows(first_W, last_W, fires_W, document_W)


def texts(
    corpus: Corpus, windows: Windows, pieces: Sequence[Piece], marked: NDArray | None = None
) -> list[str]:
    """What windows read. marked: [M] places whose tokens stand between << and >>."""
    tokens_M, counted_M = corpus.tokens.reshape(-1), corpus.counted.reshape(-1)
    written = []
    for first, last in zip(windows.first.tolist(), windows.last.tolist(), strict=True):
        places = [place for place in range(first, last) if counted_M[place]]
        words = spell([pieces[token] for token in tokens_M[places].tolist()])
        if marked is not None:
            on = marked[places]
            words = [f"<<{w}>>" if mark else w for w, mark in zip(words, on, strict=True)]
        written.append("".join(words))
    return written


def told_by(places_M: NDArray, windows: Windows) -> NDArray:
    """[W] whether any of some places lies in each window."""
    sums = np.concatenate([[0], np.cumsum(places_M)])
    return sums[windows.last] > sums[windows.first]


def score(told_W: NDArray, windows: Windows, seed: int = 0) -> Estimate:
    """Balanced accuracy over windows, interval over their documents."""
    _, group_W = np.unique(windows.document, return_inverse=True)
    columns = (told_W & windows.fires, told_W, windows.fires, np.ones(len(told_W), bool))
    sums_GM = np.stack([np.bincount(group_W, column) for column in columns], axis=1)
    value = float(balanced(*sums_GM.sum(0)))
    if len(sums_GM) < 2 or value != value:
        return Estimate(None if value != value else value)
    resampled_RM = weights(len(sums_GM), seed) @ sums_GM
    scores_R = balanced(*resampled_RM.T)
    low, high = np.nanpercentile(scores_R, [2.5, 97.5])
    return Estimate(value, float(low), float(high))
