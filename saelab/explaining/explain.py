"""Explaining all features of an SAE by rules: read, choose, score, put in words.

Shapes: U units, F features, J promoted tokens.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.explaining import choosing, corpus, detection, families
from saelab.explaining.corpus import HELD_OUT, Corpus, Firings
from saelab.explaining.records import Explanation
from saelab.sae import SAE
from saelab.spelling import Piece
from saelab.statistics import Estimate

NO_RULE = "no rule found"
NONE = Estimate(None)


class Explained(NamedTuple):
    """Explanations of an SAE's features, with what they were found and scored on."""

    by_feature: dict[int, Explanation]
    means: dict[str, Estimate]
    """balanced accuracy over the features that fire held out: `rule`, `token`, `gain`"""
    tokens: int
    """training tokens that rules were found on"""
    held_out: int
    """tokens that they were scored on"""
    documents: int
    """held-out documents"""
    live: int
    """features that fire on the training tokens"""
    unseen: int
    """of them, those that fire on no held-out token"""
    without: int
    """of them, those that no rule was found for"""
    absent: dict[str, str]
    """families of rules that could not be had, with the reason"""


def explain(
    sae: SAE,
    cache: Any,
    pieces: Sequence[Piece] | None,
    *,
    promoted_FJ: NDArray | None = None,
    suppressed_FJ: NDArray | None = None,
    n_tokens: int = 500_000,
    n_held_out: int = 100_000,
    seed: int = 0,
    progress: Callable[[int], object] | None = None,
) -> tuple[Explained, Corpus, Firings]:
    """Rules for every feature of a frozen SAE that fires on the training tokens of a cache.

    pieces: what every token reads (`saelab.spelling.pieces`); None without a tokenizer: rules then
    are on ids and positions, and `absent` says which there are not. promoted_FJ, suppressed_FJ: the
    output tokens that each feature raises and lowers most, where that is known.

        explained, *_ = explain(run.sae, run.cache, pieces(tokenizer, len(tokenizer)))
        explained.by_feature[7].text, explained.by_feature[7].score
    """
    sae = sae.frozen()
    limits = (n_tokens, n_held_out)
    read, firings = corpus.read(sae, cache, sae.origin.hook, *limits, progress)
    promoted_UJ = _by_unit(sae, promoted_FJ, suppressed_FJ)
    every = families.every(read, pieces, promoted_UJ)
    made = explained(read, firings, every, sae.sparsify.signed, seed)
    return made._replace(absent=families.absent(read, pieces, promoted_UJ)), read, firings


def main_units(
    features: Sequence[int], read: Corpus, firings: Firings, signed: bool
) -> dict[int, int]:
    """The unit of each feature that fires on the training tokens: of a signed SAE that of its more
    frequent sign."""
    train_U = firings.inside(read.places(corpus.FIND, corpus.CHOOSE)).counts()
    units = {}
    for feature in features:
        own = [2 * feature, 2 * feature + 1] if signed else [feature]
        unit = max(own, key=lambda one: train_U[one])
        if train_U[unit]:
            units[feature] = unit
    return units


def of_tokens(read: Corpus, firings: Firings, every: Any) -> Callable[[int], NDArray]:
    """Where each unit's best single token stands: unit -> [M] bool."""
    _, (family, rules_UK) = choosing.choose([next(iter(every))], read, firings)

    def places(unit: int) -> NDArray:
        return np.isin(family.ids, rules_UK[[unit]].indices)

    return places


def explained(
    read: Corpus, firings: Firings, every: Any, signed: bool = False, seed: int = 0
) -> Explained:
    """The same from what was read and the families to choose from."""
    chosen, token = choosing.choose(every, read, firings)
    known = detection.truth(read, firings, HELD_OUT)
    told = detection.tell(chosen, known)
    null_U = detection.shuffled(chosen, known, seed)
    single = detection.tell([token], known)
    train_U = firings.inside(~known.places).counts()
    scored = detection.score(told, single, known, null_U, seed)
    right_U, told_U, fired_U = detection.totals(told, known)
    words = _words(chosen)
    by_unit = {}
    # Where all tokens are one, no single token says anything.
    has_tokens = len(token.family.values) > 1
    for unit in np.flatnonzero(train_U).tolist():
        kind, text, cells = words.get(unit, ("", NO_RULE, 0))
        beside = (scored.token[unit], scored.gain[unit]) if has_tokens else (NONE, NONE)
        by_unit[unit] = Explanation(
            text,
            scored.score[unit],
            kind=kind,
            cells=cells,
            token=beside[0],
            gain=beside[1],
            recall=_share(right_U[unit], fired_U[unit]),
            precision=_share(right_U[unit], told_U[unit]),
            firings=int(fired_U[unit]),
        )
    by_feature = _by_feature(by_unit, train_U, signed)
    n_places = int(known.places.sum())
    return Explained(
        by_feature,
        scored.means if has_tokens else {**scored.means, "token": NONE, "gain": NONE},
        tokens=int(read.counted.sum()) - n_places,
        held_out=n_places,
        documents=len(known.seen),
        live=len(by_feature),
        unseen=sum(one.score.value is None for one in by_feature.values()),
        without=sum(not one.kind for one in by_feature.values()),
        absent={},
    )


def _share(part: int, whole: int) -> float | None:
    return float(part / whole) if whole else None


def _words(chosen: Sequence[choosing.Chosen]) -> dict[int, tuple[str, str, int]]:
    """By unit: the family, the rule in words, how many keys it has."""
    words = {}
    for family, rules_UK in chosen:
        starts = rules_UK.indptr
        for unit in np.flatnonzero(np.diff(starts)).tolist():
            keys = family.values[rules_UK.indices[starts[unit] : starts[unit + 1]]].tolist()
            words[unit] = (family.name, family.told(keys), 1 if family.ordered else len(keys))
    return words


def _by_feature(
    by_unit: dict[int, Explanation], fired_U: NDArray, signed: bool
) -> dict[int, Explanation]:
    """By feature; of a signed SAE the sign that fires more often, which then holds the other."""
    if not signed:
        return by_unit
    by_feature: dict[int, Explanation] = {}
    for feature in sorted({unit // 2 for unit in by_unit}):
        signs = sorted((2 * feature, 2 * feature + 1), key=lambda unit: -fired_U[unit])
        first, second = (by_unit.get(unit) for unit in signs)
        assert first is not None
        marks = ["+" if unit % 2 == 0 else "−" for unit in signs]
        opposite = second and second._replace(text=f"{marks[1]}: {second.text}")
        by_feature[feature] = first._replace(text=f"{marks[0]}: {first.text}", opposite=opposite)
    return by_feature


def _by_unit(sae: SAE, promoted_FJ: NDArray | None, suppressed_FJ: NDArray | None) -> Any:
    """[U, J]: a negative sign promotes what the positive one suppresses."""
    if promoted_FJ is None or not sae.sparsify.signed:
        return promoted_FJ
    assert suppressed_FJ is not None
    pair = np.stack([promoted_FJ, suppressed_FJ], axis=1)
    return pair.reshape(2 * len(promoted_FJ), -1)
