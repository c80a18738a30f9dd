"""Continuations of a text: as the model writes them, steered, and steered the same distance in
other directions.

Shapes: C contexts, T positions, E edits, O width of what is explained, R controls, S samples, V
vocabulary.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.steering.controls import random_rows
from saelab.analysis.steering.edits import Edit, check, hooks, push, pushing
from saelab.errors import UsageError
from saelab.models import running
from saelab.sae import SAE


class Beside(NamedTuple):
    """New tokens after one prompt, drawn with the same random numbers, so that only the edits make
    them differ."""

    original: Tensor
    """[S, n]"""
    steered: Tensor
    """[S, n]"""
    random: Tensor
    """[R, S, n]: random directions of the edit's length at every position"""
    others: Tensor
    """[R, S, n]: other features' directions, likewise; R is 0 where none were named"""


@torch.no_grad()
def generate(
    model: Any,
    tokens_CT: Tensor,
    n: int,
    sae: SAE,
    edits: Sequence[Edit],
    temperature: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """[C, T + n]: tokens_CT continued by n steered tokens; temperature 0 takes the most probable
    one.

    Raises UsageError where the continuation would be longer than the model's context.
    """
    return continued(model, tokens_CT, n, hooks(model, sae, edits), temperature, seed)


@torch.no_grad()
def continued(
    model: Any,
    tokens_CT: Tensor,
    n: int,
    acting: running.Edits = (),
    temperature: float = 0.0,
    seed: int = 0,
) -> Tensor:
    """The same with any edits of `running.logits` in place, none for the model as it is. Each new
    token costs a pass over all of them, so that every position is edited as in one pass."""
    if tokens_CT.shape[1] + n > model.cfg.n_ctx:
        raise UsageError(
            f"{tokens_CT.shape[1]} + {n} tokens are more than the model's context of "
            f"{model.cfg.n_ctx}"
        )
    draw = torch.Generator().manual_seed(seed)
    for _ in range(n):
        logits_CV = running.logits(model, tokens_CT, acting, last=True).float().cpu()
        if temperature:
            next_C1 = (logits_CV / temperature).softmax(-1).multinomial(1, generator=draw)
        else:
            next_C1 = logits_CV.argmax(-1, keepdim=True)
        tokens_CT = torch.cat([tokens_CT, next_C1.to(tokens_CT)], 1)
    return tokens_CT


@torch.no_grad()
def beside(
    model: Any,
    sae: SAE,
    tokens_T: Tensor,
    n: int,
    edits: Sequence[Edit],
    *,
    positions: Sequence[int] | None = None,
    samples: int = 1,
    temperature: float = 0.0,
    n_random: int = 2,
    others: Sequence[Sequence[int]] = (),
    seed: int = 0,
) -> Beside:
    """n new tokens after a prompt: as the model writes them, with the edits, with n_random random
    directions in the features' place, and with the features `others` (one for each edit, in each of
    them) in their place.

    positions: those edited (default: every one but the first, new ones too). Raises UsageError for
    edits that cannot be made, and where the continuation would be longer than the context.

    >>> edits = [Edit(17, "clamp", 8.0)]
    >>> spelled = model.tokenizer.batch_decode(beside(model, sae, tokens_T, 20, edits).steered)
    """
    check(sae, edits)
    start_ST = tokens_T.expand(samples, -1)

    def new(acting: running.Edits) -> Tensor:
        whole = continued(model, start_ST, n, acting, temperature, seed)
        return whole[:, len(tokens_T) :]

    def along(direction_EO: Tensor | None) -> Tensor:
        return new(pushing(model, sae, push(sae, edits, direction_EO, positions)))

    nothing = tokens_T.new_zeros(0, samples, n)
    random = [along(rows_EO) for rows_EO in random_rows(sae, len(edits), n_random, seed)]
    W_dec_FO = sae.W_dec.detach()
    other = [along(W_dec_FO[list(features)]) for features in others]
    return Beside(
        new(()),
        along(None),
        torch.stack(random) if random else nothing,
        torch.stack(other) if other else nothing,
    )
