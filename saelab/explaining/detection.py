"""Detection: how well rules tell, token by token on held-out contexts, where units fire.

Balanced accuracy = (recall + 1 - false alarms) / 2: the share of the firings that a rule tells, and
the share of the other tokens that it leaves alone. Shapes: M places, K keys, U units, G documents,
R resamples.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
from numpy.typing import NDArray

from saelab.explaining import rules
from saelab.explaining.choosing import Chosen
from saelab.explaining.corpus import Corpus, Firings
from saelab.explaining.families import Family
from saelab.statistics import Estimate, weights

SHUFFLES = 8  # other units whose rule every unit is tried with
BLOCK = 1024  # units resampled at once


class Truth(NamedTuple):
    """Where units fire on the tokens that rules are scored on."""

    fires: Firings
    """at those places alone"""
    places: NDArray
    """[M] bool: those places"""
    document: NDArray
    """[M] number of each place's document, from 0"""
    fired: Any
    """[U, G] sparse: firings"""
    seen: NDArray
    """[G] places"""


class Told(NamedTuple):
    """What rules tell, by document."""

    told: Any
    """[U, G] sparse: places on which the rule says that the unit fires"""
    right: Any
    """[U, G] sparse: those of them on which it does"""


def truth(corpus: Corpus, firings: Firings, *parts: int) -> Truth:
    """The tokens of some parts of a corpus."""
    places_M = corpus.places(*parts)
    documents_M = corpus.documents.reshape(-1)
    names_G, number_N = np.unique(documents_M[places_M], return_inverse=True)
    document_M = np.zeros(len(places_M), np.int32)
    document_M[places_M] = number_N
    fires = firings.inside(places_M)
    shape = (firings.n_units, len(names_G))
    fired_UG = _sums(fires.unit, document_M[fires.place], shape)
    return Truth(fires, places_M, document_M, fired_UG, np.bincount(number_N))


def _sums(row_N: NDArray, column_N: NDArray, shape: tuple[int, int]) -> Any:
    """How often each cell is named, as a sparse matrix."""
    ones_N = np.ones(len(row_N), np.int64)
    return scipy.sparse.csr_array((ones_N, (row_N, column_N)), shape=shape)


def tell(chosen: Sequence[Chosen], known: Truth) -> Told:
    """What every unit's rule tells."""
    shape = known.fired.shape
    told_UG = right_UG = scipy.sparse.csr_array(shape, dtype=np.int64)
    for family, rules_UK in chosen:
        if rules_UK.nnz:
            told_UG = told_UG + rules_UK @ _by_document(family, known)
            hit_N = holds(family, rules_UK, known.fires)
            place_N = known.fires.place[hit_N]
            right_UG = right_UG + _sums(known.fires.unit[hit_N], known.document[place_N], shape)
    return Told(told_UG.tocsr(), right_UG.tocsr())


def _by_document(family: Family, known: Truth) -> Any:
    """[K, G] sparse: places by key and document."""
    shape = (len(family.values), len(known.seen))
    return _sums(family.ids[known.places], known.document[known.places], shape)


def holds(family: Family, rules_UK: Any, firings: Firings) -> NDArray:
    """[N] bool: the firings whose place has a key of their unit's rule."""
    n_keys = len(family.values)
    cells = rules_UK.tocoo()
    told = np.sort(cells.row.astype(np.int64) * n_keys + cells.col)
    mine_N = firings.unit.astype(np.int64) * n_keys + family.ids[firings.place]
    at_N = np.searchsorted(told, mine_N).clip(max=max(len(told) - 1, 0))
    return told[at_N] == mine_N if len(told) else np.zeros(len(mine_N), bool)


def balanced(right: NDArray, told: NDArray, fired: NDArray, seen: NDArray) -> NDArray:
    """Balanced accuracy from counts; NaN where nothing fired.

    >>> float(balanced(*map(np.array, (3, 4, 6, 106))))  # recall 1/2, one false alarm in 100
    0.745
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        recall = np.where(fired > 0, right / fired, np.nan)
        alarms = (told - right) / np.maximum(seen - fired, 1)
    return (1 + recall - alarms) / 2


def resampled(told: Told, known: Truth, weights_RG: NDArray, units: slice) -> NDArray:
    """[B, R] balanced accuracy of some units under each resample of the documents."""
    parts = (table[units] @ weights_RG.T for table in (told.right, told.told, known.fired))
    right_BR, told_BR, fired_BR = (np.asarray(part) for part in parts)
    return balanced(right_BR, told_BR, fired_BR, weights_RG @ known.seen)


def totals(told: Told, known: Truth) -> tuple[NDArray, NDArray, NDArray]:
    """[U] each over all documents: right, told, fired."""
    tables = (told.right, told.told, known.fired)
    right_U, told_U, fired_U = (np.asarray(table.sum(axis=1)).reshape(-1) for table in tables)
    return right_U, told_U, fired_U


def shuffled(chosen: Sequence[Chosen], known: Truth, seed: int = 0) -> NDArray:
    """[U] mean balanced accuracy of SHUFFLES other units' rules, drawn at random: what a rule that
    has nothing to do with a unit gives."""
    (n_units, n_places) = (known.fired.shape[0], len(known.places))
    fires_UM = known.fires.matrix(n_places)
    counts = [rules.count(family, fires_UM, known.places) for family, _ in chosen]
    order_U = np.random.default_rng(seed).permutation(n_units)
    sums_U = np.zeros(n_units)
    n_shuffles = min(SHUFFLES, n_units - 1)
    for step in range(1, n_shuffles + 1):
        other_U = np.empty(n_units, np.int64)
        other_U[order_U] = np.roll(order_U, step)  # a cycle: nobody gets its own
        # A unit has one family's rule, so each family's says by how much it is off one half.
        for (_, rules_UK), counted in zip(chosen, counts, strict=True):
            sums_U += rules.advantage(rules_UK[other_U], counted)
    fired_U = counts[0].fired
    return np.where(fired_U > 0, 0.5 + sums_U / max(n_shuffles, 1), np.nan)


class Scored(NamedTuple):
    """Scores of all units."""

    score: list[Estimate]
    """of the rules, interval over documents; null: `shuffled`"""
    token: list[Estimate]
    """of the best single tokens"""
    gain: list[Estimate]
    """of the rule over the single token, paired; null 0"""
    means: dict[str, Estimate]
    """`rule`, `token` and `gain` averaged over the units that fire, interval over documents"""


def score(rule: Told, token: Told, known: Truth, null_U: NDArray, seed: int = 0) -> Scored:
    """Both kinds of explanations with their difference; a unit that fires in one document alone has
    no interval."""
    weights_RG = weights(len(known.seen), seed)
    n_units = known.fired.shape[0]
    several_U = np.asarray((known.fired > 0).sum(axis=1)).reshape(-1) > 1
    values_U2 = np.stack([_values(told, known) for told in (rule, token)], axis=1)
    bounds = np.full((3, n_units, 2), np.nan)
    sums_3R, counts_R = np.zeros((3, len(weights_RG))), np.zeros(len(weights_RG))
    for first in range(0, n_units, BLOCK):
        units = slice(first, first + BLOCK)
        pair = [resampled(told, known, weights_RG, units) for told in (rule, token)]
        three = np.stack([*pair, pair[0] - pair[1]])
        counts_R += (~np.isnan(three[0])).sum(axis=0)
        sums_3R += np.nansum(three, axis=1)
        rows = np.flatnonzero(several_U[units])
        if len(rows):
            edges = np.nanpercentile(three[:, rows], [2.5, 97.5], axis=2)
            bounds[:, first + rows] = np.moveaxis(edges, 0, -1)
    rule_U, token_U = values_U2.T
    columns = (
        _estimates(rule_U, bounds[0], null_U),
        _estimates(token_U, bounds[1], null_U),
        _estimates(rule_U - token_U, bounds[2], np.zeros(n_units)),
    )
    chance = _average(null_U)
    means = {
        "rule": _mean(rule_U, sums_3R[0], counts_R, chance),
        "token": _mean(token_U, sums_3R[1], counts_R, chance),
        "gain": _mean(rule_U - token_U, sums_3R[2], counts_R, 0.0),
    }
    return Scored(*columns, means)


def _values(told: Told, known: Truth) -> NDArray:
    return balanced(*totals(told, known), known.seen.sum())


def _estimates(value_U: NDArray, bounds_U2: NDArray, null_U: NDArray) -> list[Estimate]:
    rows = np.column_stack([value_U, bounds_U2, null_U]).tolist()
    return [Estimate(*(None if number != number else number for number in row)) for row in rows]


def _average(value_U: NDArray) -> float | None:
    """The mean of those that are known."""
    return float(np.nanmean(value_U)) if (~np.isnan(value_U)).any() else None


def _mean(value_U: NDArray, sums_R: NDArray, counts_R: NDArray, null: float | None) -> Estimate:
    """The mean over units that fire, from each resample's sum over as many; the interval is moved
    so that the resamples' mean is the value, as every resample holds fewer units."""
    value = _average(value_U)
    if value is None or len(counts_R) == 0 or not counts_R.all():
        return Estimate(value, null=null)
    means_R = sums_R / counts_R
    low, high = np.percentile(means_R, [2.5, 97.5]) + value - means_R.mean()
    return Estimate(value, float(low), float(high), null)
