"""Sparse dictionaries against low rank: CoSpaDi, "Compressing LLMs via Calibration-Guided Sparse
Dictionary Learning" (arXiv 2509.22075).

The paper's claims: at equal bytes a calibrated dictionary with column-sparse codes costs the model
less than calibrated low rank (SVD-LLM), from 20% to 50%; and calibration is what makes it so.
"""

from typing import NamedTuple

import numpy as np

from saelab.activations import Cache
from saelab.analysis import compression
from saelab.analysis.compression.effect import losses_of
from saelab.statistics import Estimate, difference, weights

from . import data
from .claims import Claim, Settings, judge

HOOK = "blocks.1.hook_resid_post"  # of the cache, of which the text alone is read
RIDGE = 1e-9  # a layer norm without a bias gives moments that lack one direction


class Plan(NamedTuple):
    """How large it is."""

    tokens: int
    held_out: int
    rounds: int
    ratios: tuple[float, ...]


FULL = Plan(100_000, 50_000, 20, (0.2, 0.3, 0.4, 0.5))
QUICK = Plan(10_000, 2_000, 2, (0.3,))


def claims(settings: Settings) -> list[Claim]:
    """Cross-entropy of the sparse dictionary's model less that of its rivals', paired by
    document."""
    plan = QUICK if settings.quick else FULL
    # Held out are about 5% of what is captured.
    n_captured = max(2 * plan.tokens, 20 * plan.held_out)
    cache = Cache(data.cache(settings, "stdlib", [HOOK], n_captured))
    model = data.model(settings)
    hooks = [matrix.hook for matrix in compression.matrices(model)]
    moments = compression.grams(model, cache, list(dict.fromkeys(hooks)), plan.tokens)
    stated = []
    for ratio in plan.ratios:
        rivals = {"whitened-svd": "less than SVD-LLM"}
        if ratio == plan.ratios[0]:
            rivals["dictionary"] = "calibration is needed"
        less = _less(settings, model, cache, moments, plan, ratio, list(rivals))
        stated += [
            Claim(
                f"cross-entropy (nats): cospadi less {name}, {ratio:.0%} of the bits saved",
                theirs,
                less[name],
                judge(less[name], below=0.0),
            )
            for name, theirs in rivals.items()
        ]
    return stated


def _less(
    settings: Settings,
    model: object,
    cache: Cache,
    moments: dict[str, compression.Gram],
    plan: Plan,
    ratio: float,
    rivals: list[str],
) -> dict[str, Estimate]:
    """By rival: the loss of cospadi's model less that of the rival's, on the same documents."""
    methods = ["cospadi", *rivals]
    groups = compression.grouped(compression.matrices(model), 1)
    sought = compression.Plan(ratio, plan.rounds, settings.seed)
    small = []
    for number, method in enumerate(methods):
        settings.progress(f"compress {ratio:.0%}", number, len(methods))
        made = compression.compress(model, groups, moments, method, sought, RIDGE)
        small.append(compression.multiplied_out(model, made))
    sums, table = losses_of(small, cache, plan.held_out)
    weights_RG = weights(len(sums.documents), settings.seed)
    columns = [np.stack([table[str(i)], table["n"]], 1) for i in range(len(small))]

    def mean(sums: np.ndarray) -> np.ndarray:
        return sums[..., 0] / sums[..., 1]

    return {
        name: difference(columns[0], column, mean, weights_RG)
        for name, column in zip(rivals, columns[1:], strict=True)
    }
