"""The numbers of one SAE in the dark-matter document, from sums by document.

Shapes: G documents, R resamples.
"""

from collections.abc import Callable
from functools import partial

import numpy as np

from saelab.analysis.dark_matter import decomposition
from saelab.analysis.dark_matter.decomposition import Map, Totals
from saelab.analysis.dark_matter.subject import CONTROLS, LOSSES, Subject
from saelab.statistics import over_documents, weights
from saelab.statistics.bootstrap import total


def cross_entropy(losses: Totals, name: str) -> np.ndarray:
    """Mean next-token cross-entropy in nats, of sums [...] by name of LOSSES."""
    return losses[name] / losses["predictions"]


def ce_share(losses: Totals, name: str) -> np.ndarray:
    """(CE_spliced - CE_name) / (CE_spliced - CE_clean): the share of the SAE's cost that adding a
    part of its error back undoes.

    0 where the SAE costs nothing.
    """
    cost = cross_entropy(losses, "spliced") - cross_entropy(losses, "clean")
    saved = cross_entropy(losses, "spliced") - cross_entropy(losses, name)
    return np.where(cost == 0, 0.0, saved / np.where(cost == 0, 1, cost))


def ce_proportion(sums: Totals) -> np.ndarray:
    """The nonlinear error's share of the SAE's cost in loss over its share of the error's sum of
    squares; 1 is proportional.

    Its share of the cost is what stays when the linear part is added back. sums: by name of
    `columns` and of LOSSES.
    """
    return (1 - ce_share(sums, "linear")) / decomposition.share(sums, "nonlinear")


def fields(name: str, subject: Subject, seed: int) -> dict:
    """One run's entry."""
    documents = subject.sums["sae"].documents
    weights_RG = weights(len(documents), seed)
    sums, losses = subject.sums["sae"].table(), subject.losses.table(documents)
    scores = _scores(sums, subject.maps["sae"], weights_RG)
    for part in ("linear", "nonlinear"):
        null = float(ce_share(total(losses), f"noise_{part}"))
        for score, table, measure, chance in (
            ("fvu", sums, decomposition.fvu, None),
            ("share", sums, decomposition.share, None),
            ("ce_share", losses, ce_share, null),
        ):
            of_part = partial(_of_part, measure, part)
            scores[f"{score}_{part}"] = over_documents(table, of_part, weights_RG, chance).as_dict()
    proportion = over_documents(sums | losses, ce_proportion, weights_RG, 1.0)
    scores["ce_proportion"] = proportion.as_dict()
    controls = {
        name: _scores(subject.sums[name].table(), subject.maps[name], weights_RG)
        for name in CONTROLS
    }
    return {
        "run": name,
        "hook": subject.hook,
        "n_features": subject.sae.n_features,
        "k": subject.sae.origin.k,
        "sparsify": subject.sae.origin.sparsify,
        **scores,
        "linear_r2_null": subject.maps["sae"].error.null,
        **{f"ce_{which}": float(cross_entropy(total(losses), which)) for which in LOSSES[1:]},
        "controls": controls,
        "tokens_fitted": subject.own.n,
        "tokens": int(sums["tokens"].sum()),
        "documents": len(documents),
    }


def _scores(sums: Totals, map: Map, weights_RG: np.ndarray) -> dict[str, dict]:
    """The scores that runs and controls share."""
    scores = {
        "linear_r2": (decomposition.r2, map.error.null),
        "linear_r2_dimensions": (_mean_r2_dimensions, map.error.null),
        "norm_r2": (decomposition.norm_r2, map.error.null),
        "fvu": (decomposition.fvu, 1.0),
    }
    return {
        name: over_documents(sums, statistic, weights_RG, null).as_dict()
        for name, (statistic, null) in scores.items()
    }


def _of_part(measure: Callable, part: str, sums: Totals) -> np.ndarray:
    return measure(sums, part)


def _mean_r2_dimensions(sums: Totals) -> np.ndarray:
    return decomposition.r2_dimensions(sums).mean(-1)
