"""The report's comparison of runs: error norms told from one run to another, and power laws over
width and over k.

Shapes: N tokens, G documents, S sizes, R resamples.
"""

from collections.abc import Callable
from functools import partial
from itertools import permutations
from typing import Any

import numpy as np
from torch import Tensor

from saelab.analysis.dark_matter import decomposition, laws
from saelab.analysis.dark_matter.decomposition import Totals
from saelab.statistics import over_documents, weights
from saelab.statistics.bootstrap import total

COLUMNS = {"fvu": "error", "fvu_linear": "linear", "fvu_nonlinear": "nonlinear"}
SIZES = {"n_features": "k", "k": "n_features"}  # what grows, and what must then be equal


def scaling(
    runs: list[dict], tables: list[Totals], norms: list[Tensor], owners_N: Tensor, seed: int
) -> dict:
    """`norms` between every two runs at one hook, and a law per group of four or more that differ
    in one size alone.

    runs: their entries of the report; tables [G, ...]: sums by document; norms [N, 2]: lengths of
    the error and its nonlinear part.
    """
    several = len(owners_N.unique()) > 1
    pairs = [
        (a, b)
        for a, b in permutations(range(len(runs)), 2)
        if several and runs[a]["hook"] == runs[b]["hook"]
    ]
    weights_RG = weights(len(tables[0]["tokens"]), seed)
    return {
        "norms": [_told(runs[a], runs[b], norms[a], norms[b], owners_N, seed) for a, b in pairs],
        "laws": [
            law
            for grows, fixed in SIZES.items()
            for law in _laws(runs, tables, weights_RG, grows, fixed)
        ],
    }


def _told(
    source: dict, target: dict, norms_N2: Tensor, others_N2: Tensor, owners_N: Tensor, seed: int
) -> dict:
    told = laws.norms_told(norms_N2[:, 0], norms_N2[:, 1], others_N2[:, 0], owners_N, seed)
    return {
        "from": source["run"],
        "to": target["run"],
        "r2": told.r2.as_dict(),
        "added": told.added.as_dict(),
    }


def _laws(
    runs: list[dict], tables: list[Totals], weights_RG: np.ndarray, grows: str, fixed: str
) -> list[dict]:
    groups: dict[tuple, dict[Any, int]] = {}
    for i, run in enumerate(runs):
        if run[grows] is not None:
            groups.setdefault((run["hook"], run["sparsify"], run[fixed]), {}).setdefault(
                run[grows], i
            )
    large = {key: dict(sorted(group.items())) for key, group in groups.items() if len(group) >= 4}
    return [_law(key, group, tables, weights_RG, grows, fixed) for key, group in large.items()]


def _law(
    key: tuple,
    group: dict[Any, int],
    tables: list[Totals],
    weights_RG: np.ndarray,
    grows: str,
    fixed: str,
) -> dict:
    """The law of one group, its numbers with intervals over documents, paired across the runs."""
    sizes = np.array(list(group))
    grown = [tables[i] for i in group.values()]
    sums_GS = {name: np.stack([table[name] for table in grown], 1) for name in grown[0]}

    def part(name: str, sums: Totals) -> np.ndarray:
        law = laws.power_law(sizes, decomposition.fvu(sums))
        return {**law._asdict(), **laws.bands(law, decomposition.fvu(sums, "nonlinear"))}[name]

    statistics: dict[str, tuple[Callable[[Totals], np.ndarray], float | None]] = {
        name: (partial(part, name), None)
        for name in ("floor", "scale", "exponent", "nonlinear", "linear")
    }
    statistics["fvu_nonlinear_ratio"] = partial(_change, decomposition.fvu), 1.0
    statistics["share_nonlinear_ratio"] = partial(_change, decomposition.share), 1.0
    return {
        "over": grows,
        "hook": key[0],
        "sparsify": key[1],
        fixed: key[2],
        "sizes": sizes.tolist(),
        **{
            name: decomposition.fvu(total(sums_GS), column).tolist()
            for name, column in COLUMNS.items()
        },
        **{
            name: over_documents(sums_GS, statistic, weights_RG, null).as_dict()
            for name, (statistic, null) in statistics.items()
        },
    }


def _change(measure: Callable, sums: Totals) -> np.ndarray:
    """Of a measure of the nonlinear part from the smallest size to the largest, as a ratio."""
    by_size = measure(sums, "nonlinear")
    return by_size[..., -1] / by_size[..., 0]
