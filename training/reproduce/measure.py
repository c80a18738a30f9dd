"""How well SAEs in inference form do on the same tokens: reconstruction, dead features, the model's
loss.

Shapes: C contexts, T positions, N tokens, D width, F features.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.evaluation import metrics
from saelab.evaluation.downstream import Splice, spliced

ROWS = 4096  # tokens coded at a time
LEAST = 1e-6  # of the highest level: what one of 0 counts as, as only others can be scaled
MARGIN = 1e-5  # by which levels lie below the smallest value that passes, relative


class Quality(NamedTuple):
    """fvu, l0, dead (share of features that never fire) on the same tokens: definitions of
    saelab.evaluation.metrics."""

    fvu: float
    l0: float
    dead: float


@functools.lru_cache(4)
def tokens(folder: str, hook: str, split: str, n_tokens: int) -> Tensor:
    """[N, D]: the first n_tokens of a cache's split that count. Raises UsageError if there is
    none."""
    return torch.cat([chunk.x for chunk in Cache(folder).counted(hook, split, n_tokens)])


@torch.no_grad()
def quality(sae: SAE, x_ND: Tensor) -> Quality:
    """Quality of an SAE on tokens [N, D]."""
    fired_F = sae.W_enc.new_zeros(sae.n_features, dtype=torch.int64)
    error = 0.0
    for rows_BD in x_ND.split(ROWS):
        x_BD = rows_BD.to(sae.W_enc)
        x_hat_BD, code = sae.reconstruct(x_BD)
        error += float((x_BD.double() - x_hat_BD.double()).square().sum())
        fired_F += torch.bincount(code.features[code.values != 0], minlength=sae.n_features)
    sums = {
        "tokens": np.array(len(x_ND)),
        "error": np.array(error),
        "square": x_ND.double().square().sum().numpy(),
        "x": x_ND.double().sum(0).numpy(),
        "fired": fired_F.cpu().numpy(),
        "l0": fired_F.sum().cpu().numpy(),
    }
    return Quality(
        float(metrics.fvu(sums)), float(metrics.l0(sums)), float(metrics.silent_fraction(sums))
    )


@torch.no_grad()
def at_l0(sae: SAE, x_ND: Tensor, k: int) -> SAE:
    """The SAE with its levels times the one number that lets k pairs per token pass on tokens
    [N, D]; itself where it has none, because its form is k pairs per token.

    Calibrated on training tokens, levels let 4 to 7% more pass on other documents.
    """
    if sae.levels is None:
        return sae
    reset = sae.frozen()
    reset.levels = torch.zeros_like(sae.levels)
    base_F = sae.levels.clamp_min(LEAST * float(sae.levels.max()))
    codes = [reset.encode(rows_BD.to(sae.W_enc)) for rows_BD in x_ND.split(ROWS)]
    shares_N = torch.cat([code.values / base_F[code.features] for code in codes])
    smallest = shares_N.topk(min(k * len(x_ND), len(shares_N))).values[-1]
    reset.levels = base_F * smallest * (1 - MARGIN)
    return reset


@torch.no_grad()
def added_loss(
    saes: Sequence[SAE], cache: Cache, model: Any, hook: str, n_tokens: int, behind: int = 0
) -> np.ndarray:
    """[number of SAEs]: what each adds to the model's mean next-token cross-entropy in nats,
    spliced in at held-out contexts. behind: tokens that count, of which no context is read."""
    added, n_read, passed = np.zeros(len(saes)), 0, 0
    for chunk in cache.contexts(hook, "held_out"):
        counted_C = chunk.counted.sum(1)
        before_C = passed + counted_C.cumsum(0) - counted_C
        passed += int(counted_C.sum())
        for first in range(int((before_C < behind).sum()), len(chunk.tokens), 16):
            tokens_CT, _, _, counted_CT = chunk.part(slice(first, first + 16))
            splice = Splice(model, tokens_CT, hook)
            acts_CTD = splice.acts[hook]
            replacements = {str(i): sae(acts_CTD.to(sae.W_enc)) for i, sae in enumerate(saes)}
            compared = spliced(splice, replacements, counted_CT)
            loss_P = compared.pop("clean").loss
            added += [float(each.loss.sum() - loss_P.sum()) for each in compared.values()]
            n_read += len(loss_P)
            if n_read >= n_tokens:
                return added / n_read
    return added / n_read
