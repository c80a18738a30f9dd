"""A better estimate of what the loss does without a feature: gradients integrated over the way on
which the feature goes.

The loss less what it is without a pair is the integral of value x (W_dec . dL/dx) over the share
of the pair that is left, from none to all. `exact` runs both ends of that way. The gradient at x
takes the slope at one end for that of all of it, which is far off for dense features, whose values
are large. Here the slope is the mean over midpoints of each pair's own way, all other pairs as they
are. Source: integrated gradients (Sundararajan et al. 2017).

Shapes: T positions, E width of what is explained, N pairs, M pairs with a way of their own, P
passes, C contexts.
"""

from typing import Any

import torch
from torch import Tensor

from saelab.analysis.prompts.features import Read, along
from saelab.models import resolve_hook, running

STEPS = 2  # midpoints of each way
LARGEST = 2  # pairs of a token that have a way of their own, those that write most
APART = 8  # tokens between two pairs that go at once: what they do to each other is small


@torch.no_grad()
def integrated(
    model: Any, read: Read, steps: int = STEPS, largest: int = LARGEST, apart: int = APART
) -> Tensor | None:
    """[N]: estimated effect of each pair on the prompt's summed loss in nats; None of a model that
    predicts no tokens.

    The `largest` pairs of each token are integrated over `steps` midpoints, the others, which are
    small, have the gradient at x. It costs steps x largest x apart contexts forward and backward
    (32) beside the one of the gradient.

    >>> rows = table(activations, index.means(), integrated(model, activations))
    """
    if read.gradient is None:
        return None
    effect_N = along(read, read.gradient)
    sizes_N = read.written.abs() * read.sae.W_dec.detach().norm(dim=1)[read.code.features]
    rank_N = _ranks(sizes_N, read.code.tokens)
    own_M = (rank_N < largest).nonzero()[:, 0]
    if not len(own_M):
        return effect_N
    # Pairs of one rank whose tokens lie `apart` tokens from each other go in one pass.
    at_M = read.code.tokens[own_M]
    pass_M = rank_N[own_M] * apart + at_M % apart
    rows_ME = read.sae.W_dec.detach()[read.code.features[own_M]]
    slope_M = torch.zeros_like(sizes_N[own_M])
    for step in range(steps):
        gone = 1 - (step + 0.5) / steps
        acts_PTE = read.explained.repeat(largest * apart, 1, 1)
        acts_PTE[pass_M, at_M] -= gone * read.written[own_M, None] * rows_ME
        slope_PTE = _gradients(model, read, acts_PTE)
        slope_M += (slope_PTE[pass_M, at_M] * rows_ME).sum(1) / steps
    effect_N[own_M] = read.written[own_M] * slope_M
    return effect_N


def _ranks(sizes_N: Tensor, token_N: Tensor) -> Tensor:
    """[N]: how many pairs of the same token are larger; ties to the first."""
    order_N = sizes_N.argsort(descending=True, stable=True)
    order_N = order_N[token_N[order_N].argsort(stable=True)]
    sorted_N = token_N[order_N]
    first_N = torch.searchsorted(sorted_N, sorted_N)  # where each token's pairs begin
    rank_N = torch.empty_like(order_N)
    rank_N[order_N] = torch.arange(len(order_N), device=order_N.device) - first_N
    return rank_N


def _gradients(model: Any, read: Read, acts_PTE: Tensor) -> Tensor:
    """[P, T, E]: dL/dx of the prompt with each of those activations in the place of x."""
    tokens_T = read.prompt.tokens
    name = resolve_hook(model, read.sae.origin.target)
    size = running.contexts_per_pass(model, len(tokens_T), logits=True)
    slopes = []
    for part_CTE in acts_PTE.split(size):
        tokens_CT = tokens_T.expand(len(part_CTE), -1)
        read_off = running.gradients(model, tokens_CT, [name], edits={name: part_CTE})
        slopes.append(read_off[f"{name}.grad"].flatten(2).to(acts_PTE))
    return torch.cat(slopes)
