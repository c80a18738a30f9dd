"""How far a dictionary's features move the model's next-token prediction when they are added to it,
and whether towards what follows a kind of token.

Shapes: C contexts, T positions, D width, V vocabulary, R rows, K kinds of tokens.
"""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.evaluation.labelled import Contexts
from saelab.models import losses, running

ROWS = 64  # rows steered in one forward pass
LENGTH = 24  # tokens of a context; the last one is steered
SHARE = 0.5  # of the activations' root mean square distance from their mean: the norm that is added
LEAST = 1e-30
WINDOW = 64  # tokens of a context that is steered towards a kind


def norm_of(x_ND: Tensor) -> float:
    """The norm that is added to activations like these."""
    return SHARE * float((x_ND - x_ND.mean(0)).square().sum(1).mean().sqrt())


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


class Kinds(NamedTuple):
    """What follows kinds of tokens, and where they are absent."""

    follows: Tensor
    """[K, V] the model's mean prediction after tokens of each kind; 0 after one that never comes"""
    tokens: Tensor
    """[C, T] other contexts"""
    at: Tensor
    """[K, C] a position of each that is not of the kind, drawn at random"""

    @torch.no_grad()
    def gained(self, rows_KD: Tensor, model: Any, hook: str, norm: float) -> float:
        """Mean over kinds and contexts of the cross-entropy in nats, to what follows the kind, that
        is saved where its row is added, scaled to that norm. Kinds without a row, or that never
        come, are left out."""
        clean_CTV = running.logits(model, self.tokens).log_softmax(-1)
        each_C, gains = torch.arange(len(self.tokens)), []
        for follows_V, at_C, row_D in zip(self.follows, self.at, rows_KD, strict=True):
            if not (follows_V.any() and row_D.any()):
                continue
            add = partial(_added, place=(each_C, at_C), added_D=norm * row_D / row_D.norm())
            steered_CTV = running.logits(model, self.tokens, {hook: add}).log_softmax(-1)
            moved_CV = (steered_CTV - clean_CTV)[each_C, at_C].to(follows_V)
            gains.append(float((moved_CV @ follows_V).mean()))
        return float(np.mean(gains))


@torch.no_grad()
def kinds(model: Any, seen: Contexts, others: Contexts, seed: int) -> Kinds:
    """From labelled contexts, and from the starts of others, to steer."""
    follows_KV = torch.zeros(seen.labels.shape[2], 1)
    for first in range(0, len(seen.tokens), 16):
        part = slice(first, first + 16)
        after_CTV = running.logits(model, seen.tokens[part]).softmax(-1).cpu()
        is_CTK = torch.from_numpy(seen.labels[part]).to(after_CTV)
        follows_KV = follows_KV + torch.einsum("ctk,ctv->kv", is_CTK, after_CTV)
    follows_KV /= follows_KV.sum(1, keepdim=True).clamp_min(LEAST)
    absent_CTK = (others.known[..., None] & ~others.labels)[:, :WINDOW]
    usable_C = absent_CTK.any(1).all(-1)
    drawn_CTK = np.random.default_rng(seed).random(absent_CTK.shape) * absent_CTK
    at_KC = torch.from_numpy(drawn_CTK[usable_C].argmax(1).T)
    return Kinds(follows_KV, others.tokens[torch.from_numpy(usable_C), :WINDOW], at_KC)


def _added(acts: Tensor, place: tuple[Tensor, Tensor], added_D: Tensor) -> Tensor:
    changed = acts.clone()
    changed[place] += added_D.to(acts)
    return changed


def superiority(one_R: np.ndarray, other_R: np.ndarray) -> float:
    """The chance that a value of one exceeds one of the other, ties counting half: 0.5 where they
    do not differ (ROC area)."""
    from scipy import stats

    return float(stats.mannwhitneyu(one_R, other_R).statistic / (len(one_R) * len(other_R)))
