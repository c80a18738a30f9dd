"""Steering: features of an SAE added, clamped or ablated while the model runs, beside random
directions of the same length.

Source: Templeton et al. 2024, "Scaling Monosemanticity" (clamping features; the SAE's error stays);
Marks et al. 2024 (ablation). Shapes: B tokens, C contexts, E edits, P prompts, T positions, D
width, R random draws, V vocabulary.
"""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import sites
from saelab.errors import UsageError
from saelab.models import losses, running
from saelab.sae import SAE
from saelab.statistics import Estimate, over_documents, weights
from saelab.tasks import Task, measure
from saelab.token_norm import check_additive

Mode = Literal["add", "clamp", "ablate"]
MODES = ("add", "clamp", "ablate")


class Edit(NamedTuple):
    """What happens to a feature at every position but the first.

    add: its activation grows by `value`; clamp: it becomes `value`; ablate: it becomes 0.
    """

    feature: int
    mode: Mode
    value: float = 0.0


class Steered(NamedTuple):
    """Effect of edits on a task, with 95% intervals over prompts."""

    metric: Estimate
    """of the steered model, in the task's unit"""
    change: Estimate
    """of the metric"""
    kl: Estimate
    """KL(unsteered || steered) at the end, in nats"""
    random_change: Tensor
    """[R] of random directions whose length at every position is that of the edit"""
    random_kl: Tensor
    """[R] likewise"""
    length: float
    """mean length of the edit"""


def _check(sae: SAE, edits: Sequence[Edit]) -> None:
    if not edits:
        raise UsageError("no edit to steer with: name a feature and one of add, clamp, ablate")
    for edit in edits:
        if edit.mode not in MODES:
            raise UsageError(
                f"no way to edit a feature called {edit.mode!r}; there are {', '.join(MODES)}"
            )
        if not 0 <= edit.feature < sae.n_features:
            raise UsageError(
                f"no feature {edit.feature}: this SAE has {sae.n_features}, counted from 0"
            )


@torch.no_grad()
def shift(sae: SAE, x_CTD: Tensor, edits: Sequence[Edit]) -> Tensor:
    """[C, T, D_out]: what the edits add to the activation that the SAE explains; 0 at position 0.
    The SAE's error stays."""
    check_additive(sae.token_norm)
    features = torch.tensor([edit.feature for edit in edits])
    code = sae.encode(x_CTD)
    active = [torch.where(code.features == f, code.values, 0) for f in features]
    now_BE = torch.stack(
        [v.new_zeros(code.n_tokens).index_add_(0, code.tokens, v) for v in active], 1
    )
    kept_E = torch.tensor([float(edit.mode == "add") for edit in edits])
    value_E = torch.tensor([0.0 if edit.mode == "ablate" else edit.value for edit in edits])
    moved_CTD = (((kept_E - 1) * now_BE + value_E) @ sae.W_dec.detach()[features]).view(
        *x_CTD.shape[:2], -1
    )
    moved_CTD[:, 0] = 0
    return moved_CTD


def hooks(model: Any, sae: SAE, edits: Sequence[Edit]) -> list[tuple[str, running.Edit]]:
    """What steers whole contexts, as edits of `running.logits` and as hooks of a bridge's
    `run_with_hooks(..., fwd_hooks=...)` alike.

    Raises UsageError for an unknown mode or feature, and for an SAE that does not fit the model.
    """
    _check(sae, edits)
    (site,) = sites(model, [sae])
    seen = {}

    def remember(acts: Tensor, hook: Any = None) -> None:
        seen["moved"] = shift(sae, acts.flatten(2), edits)

    def write(acts: Tensor, hook: Any = None) -> Tensor:
        return acts + seen["moved"].view(acts.shape)

    return [(site.read, remember), (site.write, write)]


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
    if tokens_CT.shape[1] + n > model.cfg.n_ctx:
        raise UsageError(
            f"{tokens_CT.shape[1]} + {n} tokens are more than the model's context of "
            f"{model.cfg.n_ctx}"
        )
    acting, draw = hooks(model, sae, edits), torch.Generator().manual_seed(seed)
    for _ in range(n):
        logits_CV = running.logits(model, tokens_CT, acting, last=True)
        if temperature:
            next_C1 = (logits_CV / temperature).softmax(-1).multinomial(1, generator=draw)
        else:
            next_C1 = logits_CV.argmax(-1, keepdim=True)
        tokens_CT = torch.cat([tokens_CT, next_C1], 1)
    return tokens_CT


@torch.no_grad()
def steer(
    model: Any, task: Task, sae: SAE, edits: Sequence[Edit], n_random: int = 20, seed: int = 0
) -> Steered:
    """Measure the edits on a task's clean prompts, and n_random random directions of the same
    length at every position."""
    _check(sae, edits)
    (site,) = sites(model, [sae])
    plain = frozen.Frozen(task.clean, {})
    acts = frozen.run(model, plain, {}, [site.read, site.write, frozen.LOGITS])
    x_PTD, y_PTD, before = acts[site.read].clone(), acts[site.write].clone(), acts[frozen.LOGITS]
    moved_PTD, draw = shift(sae, x_PTD, edits), torch.Generator().manual_seed(seed)

    def effect(moved_PTD: Tensor) -> Tensor:
        """[P, 3]: metric, its change, KL."""
        after = frozen.run(model, plain, {site.write: y_PTD + moved_PTD}, [frozen.LOGITS])[
            frozen.LOGITS
        ]
        kl_P = losses.kl(before[:, -1], after[:, -1])
        return torch.stack(
            [measure(task, after), measure(task, after) - measure(task, before), kl_P], 1
        )

    lengths_PT1 = moved_PTD.norm(dim=2, keepdim=True)
    directions = torch.randn(n_random, moved_PTD.shape[2], generator=draw)
    random_R3 = (
        torch.stack([effect(lengths_PT1 * d / d.norm()).mean(0) for d in directions])
        if n_random
        else torch.zeros(0, 3)
    )
    sums_P3 = effect(moved_PTD).double().numpy()
    weights_RP = weights(len(task.clean), seed)
    values = [
        over_documents(np.stack([column, np.ones_like(column)], 1), _mean, weights_RP)
        for column in sums_P3.T
    ]
    return Steered(
        values[0],
        values[1],
        values[2],
        random_R3[:, 1],
        random_R3[:, 2],
        float(lengths_PT1[:, 1:].mean()),
    )


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
