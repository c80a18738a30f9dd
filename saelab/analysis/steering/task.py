"""The effect of edits on a task, beside random directions of the same length.

Shapes: P prompts, T positions, D width, R random draws.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import sites
from saelab.analysis.steering.edits import Edit, check, shift
from saelab.models import losses
from saelab.sae import SAE
from saelab.statistics import Estimate, over_documents, weights
from saelab.tasks import Task, measure


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

    def estimates(self) -> dict[str, Estimate]:
        """Metric, change and KL by name; null: the mean over the random directions."""
        return {
            "metric": self.metric,
            "change": self.change._replace(null=float(self.random_change.mean())),
            "kl": self.kl._replace(null=float(self.random_kl.mean())),
        }


@torch.no_grad()
def steer(
    model: Any, task: Task, sae: SAE, edits: Sequence[Edit], n_random: int = 20, seed: int = 0
) -> Steered:
    """Measure the edits on a task's clean prompts, and n_random random directions of the same
    length at every position."""
    check(sae, edits)
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
    directions = torch.randn(n_random, moved_PTD.shape[2], generator=draw).to(moved_PTD)
    random_R3 = (
        torch.stack([effect(lengths_PT1 * d / d.norm()).mean(0) for d in directions])
        if n_random
        else torch.zeros(0, 3)
    )
    sums_P3 = effect(moved_PTD).double().cpu().numpy()
    weights_RP = weights(len(task.clean), seed)
    values = [
        over_documents(np.stack([column, np.ones_like(column)], 1), _mean, weights_RP)
        for column in sums_P3.T
    ]
    return Steered(
        values[0],
        values[1],
        values[2],
        random_R3[:, 1].cpu(),
        random_R3[:, 2].cpu(),
        float(lengths_PT1[:, 1:].mean()),
    )


def _mean(sums: np.ndarray) -> np.ndarray:
    return sums[..., 0] / sums[..., 1]
