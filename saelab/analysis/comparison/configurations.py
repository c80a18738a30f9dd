"""Which SAEs differ by their seed alone, and what two such groups differ by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from saelab.analysis.comparison.differences import over_seeds_of
from saelab.sae import SAE


def but_for_the_seed(sae: SAE) -> str:
    """A word that SAEs share which differ by their seed alone."""
    origin = replace(sae.origin, seed=None, start=None, cache=None).to_dict()
    return json.dumps([origin, repr(sae.sparsify), *sae.W_dec.shape], sort_keys=True)


def groups(saes: Mapping[str, SAE]) -> list[list[str]]:
    """Names of SAEs that differ by their seed alone, of which every one has another; in the order
    of the SAEs, one that is alone too.

    >>> groups({"a0": a0, "a1": a1, "b": b})
    [['a0', 'a1'], ['b']]
    """
    by_word: dict[str, list[str]] = {}
    for name, sae in saes.items():
        by_word.setdefault(but_for_the_seed(sae), []).append(name)
    grouped = []
    for names in by_word.values():
        distinct = len({saes[name].origin.seed for name in names}) == len(names)
        grouped += [names] if distinct else [[name] for name in names]
    return grouped


def between(
    saes: Mapping[str, SAE],
    values: Mapping[str, Mapping[str, float | None]],
    first: Sequence[str],
    second: Sequence[str],
) -> dict[str, Any]:
    """Two configurations, given as names of SAEs that differ by their seed alone: every metric's
    difference over seeds; values: metrics by SAE.

    >>> between(saes, values, ["a0", "a1", "a2"], ["b0", "b1", "b2"])["differences"][0]["verdict"]
    """
    by_seed = [
        {saes[name].origin.seed or 0: values[name] for name in side} for side in (first, second)
    ]
    rows = over_seeds_of(*by_seed)
    return {"first": list(first), "second": list(second), "differences": rows}


def compared(
    saes: Mapping[str, SAE], values: Mapping[str, Mapping[str, float | None]]
) -> list[dict[str, Any]]:
    """Every two configurations; empty where no configuration has two seeds."""
    several = groups(saes)
    if all(len(group) < 2 for group in several):
        return []
    return [between(saes, values, *pair) for pair in combinations(several, 2)]
