"""Which SAEs differ by their seed alone, and what two such groups differ by."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from typing import Any

from saelab.analysis.comparison.differences import over_common_seeds
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


def compared(
    saes: Mapping[str, SAE], values: Mapping[str, Mapping[str, float | None]]
) -> list[dict[str, Any]]:
    """Every two configurations, with every metric's difference over the seeds that both have;
    values: metrics by SAE. Empty where no configuration has two seeds."""
    several: Sequence[list[str]] = groups(saes)
    if all(len(group) < 2 for group in several):
        return []
    by_seed = [{saes[name].origin.seed or 0: values[name] for name in group} for group in several]
    return [
        {
            "first": several[i],
            "second": several[j],
            "differences": over_common_seeds(by_seed[i], by_seed[j]),
        }
        for i, j in combinations(range(len(several)), 2)
    ]
