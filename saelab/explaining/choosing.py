"""Choosing among the families' rules: found in one half of the training contexts, compared in the
other, and then found again in both, so that a family of many keys wins by no accident.

Shapes: M places, K keys, U units.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from saelab.explaining import rules
from saelab.explaining.corpus import CHOOSE, FIND, Corpus, Firings
from saelab.explaining.families import Family
from saelab.explaining.rules import Counts


class Chosen(NamedTuple):
    """The rules of one family that were chosen, and those of every unit's best single key."""

    family: Family
    rules: Any
    """[U, K] sparse bool: empty rows for units that took another family's rule"""


def choose(
    families: Iterable[Family], corpus: Corpus, firings: Firings
) -> tuple[list[Chosen], Chosen]:
    """Each unit's rule, by family; and each unit's best single token, to compare with.

    Ties go to the earlier family, and a key more must be worth PRICE.
    """
    halves = [_half(corpus, firings, part) for part in (FIND, CHOOSE)]
    best_U = np.full(firings.n_units, -np.inf)
    chosen_U = np.full(firings.n_units, -1)
    kept: list[Chosen] = []
    token: Chosen | None = None
    for number, family in enumerate(families):
        found, compared = (rules.count(family, *half) for half in halves)
        score_U = _worth(family, found, compared)
        better_U = score_U > best_U + 1e-9
        best_U[better_U], chosen_U[better_U] = score_U[better_U], number
        both = found + compared
        kept.append(Chosen(family, rules.find(family, both)))
        if token is None:
            token = Chosen(family, rules.find(family, both, most=1))
    assert token is not None, "no families"
    return [_rows(one, chosen_U == number) for number, one in enumerate(kept)], token


def _half(corpus: Corpus, firings: Firings, part: int) -> tuple[Any, NDArray]:
    """Where units fire in a part of the corpus, and its places."""
    places_M = corpus.places(part)
    return firings.inside(places_M).matrix(len(places_M)), places_M


def _worth(family: Family, found: Counts, compared: Counts) -> NDArray:
    """[U] what rules that were found in one half are worth in the other; -inf for none."""
    rules_UK = rules.find(family, found)
    better_U = rules.advantage(rules_UK, compared)
    # What fired in one half alone has nothing else to be judged by.
    better_U = np.where(compared.fired > 0, better_U, rules.advantage(rules_UK, found))
    keys_U = np.diff(rules_UK.indptr)
    worth_U = better_U - rules.PRICE / 2 * (np.minimum(keys_U, 1) if family.ordered else keys_U)
    return np.where(keys_U > 0, worth_U, -np.inf)


def _rows(chosen: Chosen, mine_U: NDArray) -> Chosen:
    """The rules of some units alone."""
    kept = chosen.rules.tocoo()
    mine_N = mine_U[kept.row]
    of_mine = rules.matrix(kept.row[mine_N], kept.col[mine_N], chosen.rules.shape)
    return chosen._replace(rules=of_mine)
