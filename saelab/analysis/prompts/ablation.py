"""What the loss really does without a feature on a token, beside its estimate.

Shapes: T positions, E width of what is explained, P pairs, N pairs of the prompt.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.prompts.features import Read, Table, strongest
from saelab.errors import UsageError
from saelab.models import resolve_hook, running
from saelab.models.losses import next_token_loss

LARGEST = 10


class Exact(NamedTuple):
    """Pairs ablated one by one."""

    rows: Tensor
    """[P] int64: their numbers in the table"""
    estimated: Tensor
    """[P]: value x (W_dec . dL/dx) in nats"""
    exact: Tensor
    """[P]: the prompt's summed loss less what it is without the pair, in nats"""
    rank_correlation: float | None
    """Spearman's of the two; None for fewer than three pairs, or where one of them is constant"""


@torch.no_grad()
def exact(model: Any, read: Read, rows: Table, n: int = LARGEST) -> Exact:
    """The n pairs of largest estimated effect, each taken out of the activation by itself: x less
    written x W_dec at its token, all else and the SAE's error as they are.

    Raises UsageError for a model that predicts no tokens.

    >>> exact(model, activations, table(activations)).rank_correlation
    """
    if rows.effect is None or read.loss is None:
        raise UsageError("this model predicts no tokens: nothing to ablate features for")
    chosen_P = strongest(rows, "effect", n)
    lost_P = read.loss.double().sum().cpu() - losses_without(model, read, chosen_P)
    estimated_P = rows.effect[chosen_P].double()
    return Exact(chosen_P, estimated_P, lost_P, rank_correlation(estimated_P, lost_P))


@torch.no_grad()
def losses_without(model: Any, read: Read, chosen_P: Tensor) -> Tensor:
    """[P] float64: the prompt's summed loss in nats without each of the pairs of those numbers."""
    hook, tokens_T = resolve_hook(model, read.sae.origin.target), read.prompt.tokens
    size = running.contexts_per_pass(model, len(tokens_T), logits=True)
    losses = []
    for part_P in chosen_P.to(read.written.device).split(size):
        tokens_PT = tokens_T.expand(len(part_P), -1)
        gone_PE = read.written[part_P, None] * read.sae.W_dec[read.code.features[part_P]]
        at_P = read.code.tokens[part_P]

        def without(acts: Tensor, gone_PE: Tensor = gone_PE, at_P: Tensor = at_P) -> Tensor:
            changed = acts.flatten(2).clone()
            changed[torch.arange(len(at_P), device=at_P.device), at_P] -= gone_PE.to(changed)
            return changed.view(acts.shape)

        logits_PTV = running.logits(model, tokens_PT, {hook: without})
        losses.append(next_token_loss(logits_PTV, tokens_PT).double().sum(1).cpu())
    return torch.cat(losses) if losses else torch.zeros(0, dtype=torch.float64)


def rank_correlation(a_P: Tensor, b_P: Tensor) -> float | None:
    """Spearman's: the correlation of ranks, ties at their mean rank; None where it is not
    defined."""
    from scipy.stats import rankdata

    if len(a_P) < 3 or a_P.unique().numel() < 2 or b_P.unique().numel() < 2:
        return None
    ranks = [rankdata(numbers_P.numpy()) for numbers_P in (a_P, b_P)]
    return float(np.corrcoef(ranks)[0, 1])
