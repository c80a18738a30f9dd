"""How far an SAE's features have moved from the random rows that they started as. Two SAEs with one
start share whatever stayed there.

Shapes: F features, E width out.
"""

from typing import Any

import numpy as np
import torch

from saelab import initial, matching
from saelab.sae import SAE
from saelab.statistics import Estimate


def start_of(sae: SAE) -> int | None:
    """What an SAE's first rows were drawn from; None for one that was not trained here."""
    origin = sae.origin
    return None if origin.format else (origin.seed if origin.start is None else origin.start)


def from_start(sae: SAE) -> np.ndarray:
    """[F] cosine of every decoder row with the one that it was trained from; empty where that is
    not known. What lies near its start was not found in the data.

    >>> (from_start(sae) > 0.7).mean()
    """
    start = start_of(sae)
    if start is None:
        return np.empty(0)
    begun_FE = initial.weights(
        sae.d_model, sae.n_features, len(sae.b_dec), not sae.transcoder, start
    )["W_dec"]
    return torch.cosine_similarity(sae.W_dec.detach().float().cpu(), begun_FE, dim=1).numpy()


def beside(
    one: SAE, other: SAE, one_fired_F: np.ndarray, other_fired_F: np.ndarray, seed: int = 0
) -> dict[str, Any]:
    """Whether two SAEs share their start, and the share of each one's live features that are still
    above cosine 0.7 with theirs (null: with other random rows). fired: tokens by feature."""
    mine, theirs = start_of(one), start_of(other)
    shapes = [tuple(sae.W_dec.shape) for sae in (one, other)]
    return {
        "same": mine is not None and mine == theirs and shapes[0] == shapes[1],
        "threshold": matching.FOUND,
        "first": _stayed(one, one_fired_F, seed),
        "second": _stayed(other, other_fired_F, seed),
    }


def _stayed(sae: SAE, fired_F: np.ndarray, seed: int) -> dict[str, Any]:
    cosine_F = from_start(sae)
    if not len(cosine_F) or not (fired_F > 0).any():
        return Estimate(None).as_dict()
    W_FE, live_F = sae.W_dec.detach().float().cpu(), fired_F > 0
    others_FE = matching.random_rows(len(W_FE), W_FE.shape[1], seed)
    chance_F = torch.cosine_similarity(W_FE, others_FE, dim=1).numpy()
    share, null = (
        float((cosines[live_F] > matching.FOUND).mean()) for cosines in (cosine_F, chance_F)
    )
    return Estimate(share, null=null).as_dict()
