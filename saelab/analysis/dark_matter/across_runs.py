"""The report's comparison of runs: error norms told from one run to another, and power laws over
width and over k.

Shapes: N tokens, G documents, M summed columns, S sizes, R resamples.
"""

from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
from torch import Tensor

from saelab.analysis.dark_matter import decomposition
from saelab.analysis.dark_matter import laws as laws
from saelab.statistics import bootstrap
from saelab.statistics.sums import field

COLUMNS = {"fvu": "error", "fvu_linear": "linear", "fvu_nonlinear": "nonlinear"}
SIZES = {"n_features": "k", "k": "n_features"}  # what grows, and what must then be equal


def scaling(
    runs: list[dict], tables: list[np.ndarray], norms: list[Tensor], owners_N: Tensor, seed: int
) -> dict:
    """`norms` between every two runs at one hook, and a law per group of four or more that differ
    in one size alone.

    runs: their entries of the report; tables [G, M]: sums by document; norms [N, 2]: lengths of the
    error and its nonlinear part.
    """
    several = len(owners_N.unique()) > 1
    pairs = [
        (a, b)
        for a, b in permutations(range(len(runs)), 2)
        if several and runs[a]["hook"] == runs[b]["hook"]
    ]
    weights_RG = bootstrap.weights(len(tables[0]), seed)
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
    names = ("value", "low", "high")
    r2, added = (dict(zip(names, numbers, strict=True)) for numbers in told[:2])
    return {
        "from": source["run"],
        "to": target["run"],
        "r2": {**r2, "null": told.null},
        "added": {**added, "null": 0.0},
    }


def _laws(
    runs: list[dict], tables: list[np.ndarray], weights_RG: np.ndarray, grows: str, fixed: str
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
    tables: list[np.ndarray],
    weights_RG: np.ndarray,
    grows: str,
    fixed: str,
) -> dict:
    """The law of one group, its numbers with intervals over documents, paired across the runs."""
    sizes = np.array(list(group))
    sums_GSM = np.stack([tables[i] for i in group.values()], 1)
    sums_GK = sums_GSM.reshape(len(sums_GSM), -1)

    def parts(flat: np.ndarray) -> dict[str, np.ndarray]:
        sums = flat.reshape(*flat.shape[:-1], *sums_GSM.shape[1:])
        law = laws.power_law(sizes, decomposition.fvu(sums))
        return {**law._asdict(), **laws.bands(law, decomposition.fvu(sums, "nonlinear"))}

    def change(flat: np.ndarray, measure: Callable) -> np.ndarray:
        """Of a measure from the smallest size to the largest, as a ratio."""
        sums = flat.reshape(*flat.shape[:-1], *sums_GSM.shape[1:])
        return measure(sums, "nonlinear")[..., -1] / measure(sums, "nonlinear")[..., 0]

    names = ("floor", "scale", "exponent", "nonlinear", "linear")
    return {
        "over": grows,
        "hook": key[0],
        "sparsify": key[1],
        fixed: key[2],
        "sizes": sizes.tolist(),
        **{
            part: decomposition.fvu(sums_GSM.sum(0), column).tolist()
            for part, column in COLUMNS.items()
        },
        **{
            name: field(sums_GK, lambda flat, name=name: parts(flat)[name], weights_RG)
            for name in names
        },
        "fvu_nonlinear_ratio": field(
            sums_GK, lambda flat: change(flat, decomposition.fvu), weights_RG, 1.0
        ),
        "share_nonlinear_ratio": field(
            sums_GK, lambda flat: change(flat, decomposition.share), weights_RG, 1.0
        ),
    }
