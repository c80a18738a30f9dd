"""How far a dictionary's features move the model's next-token prediction when they are added to it.

Shapes: C contexts, T positions, D width, V vocabulary, R rows.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.models import losses, running

ROWS = 64  # rows steered in one forward pass
LENGTH = 24  # tokens of a context; the last one is steered


def contexts(cache: Cache, n: int, seed: int) -> Tensor:
    """[n, LENGTH]: the starts of n held-out contexts drawn at random (all of them if there are
    fewer)."""
    tokens_CT = torch.cat([chunk.tokens for chunk in cache.contexts(cache.hooks[0], "held_out")])
    drawn = np.random.default_rng(seed).permutation(len(tokens_CT))[:n]
    return tokens_CT[torch.from_numpy(drawn), :LENGTH]


def alive(sae: SAE, x_ND: Tensor, n: int, seed: int) -> Tensor:
    """Decoder rows [R, D] of n features drawn at random from those that fire on tokens [N, D]."""
    with torch.no_grad():
        code = sae.encode(x_ND.to(sae.W_enc))
    fired = code.features[code.values != 0].unique().cpu().numpy()
    drawn = np.random.default_rng(seed).permutation(fired)[:n]
    return sae.W_dec.detach()[torch.from_numpy(drawn)]


@torch.no_grad()
def effects(rows_RD: Tensor, model: Any, hook: str, tokens_CT: Tensor, norm: float) -> np.ndarray:
    """[R]: mean over contexts of KL(clean || steered) in nats of the last prediction, `norm` x row
    added at the last position.

    All rows have unit norm, so that what is added has the same norm whatever the dictionary.
    """
    total_R = torch.zeros(len(rows_RD), dtype=torch.float64)
    for tokens_1T in tokens_CT[:, None]:
        clean_1V = running.logits(model, tokens_1T, last=True)
        for at in range(0, len(rows_RD), ROWS):
            part_RD = norm * rows_RD[at : at + ROWS]
            steered_RV = _steered(model, hook, tokens_1T.expand(len(part_RD), -1), part_RD)
            total_R[at : at + ROWS] += losses.kl(clean_1V.expand_as(steered_RV), steered_RV).cpu()
    return (total_R / len(tokens_CT)).numpy()


def _steered(model: Any, hook: str, tokens_RT: Tensor, added_RD: Tensor) -> Tensor:
    """[R, V]: logits after the last position, with added_RD there."""

    def add(acts: Tensor) -> Tensor:
        changed = acts.clone()
        changed[:, -1] += added_RD.to(acts).view_as(changed[:, -1])
        return changed

    return running.logits(model, tokens_RT, {hook: add}, last=True)


def superiority(one_R: np.ndarray, other_R: np.ndarray) -> float:
    """The chance that a value of one exceeds one of the other, ties counting half: 0.5 where they
    do not differ (ROC area)."""
    from scipy import stats

    return float(stats.mannwhitneyu(one_R, other_R).statistic / (len(one_R) * len(other_R)))
