"""How well a feature circuit does the task by itself, and how badly the model does without it.

Source: Marks et al. 2024, section 3.3 (faithfulness, completeness; mean ablation).
Shapes: P prompts, T positions, D width, F features, N pairs, M nodes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.circuits.features.effects import Nodes, record
from saelab.analysis.circuits.heads import ablation
from saelab.analysis.parts import Site, split
from saelab.errors import UsageError
from saelab.kernels import spmm
from saelab.models import running
from saelab.models.running import Edit
from saelab.statistics import Estimate, over_documents, weights
from saelab.tasks import Task, measure

# Of the metric's spread over prompts: a smaller difference between model and empty circuit is no
# basis for a ratio.
LEAST = 0.05


class Means(NamedTuple):
    """A site's mean on corrupted prompts."""

    features: Tensor
    """[T, F]"""
    error: Tensor
    """[T, D]"""


class Point(NamedTuple):
    """One circuit size, with 95% intervals over prompts."""

    size: int
    """nodes in the circuit"""
    faithfulness: Estimate
    """of the circuit"""
    completeness: Estimate
    """of what is left without it"""


class Curve(NamedTuple):
    """Faithfulness and completeness by size."""

    metric_clean: Estimate
    """m(M)"""
    metric_empty: Estimate
    """m(all nodes mean-ablated)"""
    points: list[Point]
    """by size"""


def means(model: Any, task: Task, sites: list[Site]) -> list[Means]:
    """Each site's mean parts at every position over the corrupted prompts."""
    means_by_site, length = [], task.corrupted.shape[1]
    for site, acts in zip(sites, record(model, task.corrupted, sites), strict=True):
        code, _, error_PTD, _ = split(site.sae, *acts)
        rows_N = code.tokens % length * code.n_features + code.features
        sums = code.values.new_zeros(length * code.n_features).index_add_(0, rows_N, code.values)
        means_by_site.append(Means(sums.view(length, -1) / len(task.corrupted), error_PTD.mean(0)))
    return means_by_site


def masks(nodes: Nodes, sites: list[Site], length: int) -> list[Tensor]:
    """For each site which nodes are in the circuit, [T, F + 1] (the last column: the error);
    position -1 means every one."""
    masks_by_site = []
    for number, site in enumerate(sites):
        mask = torch.zeros(length, site.sae.n_features + 1, dtype=torch.bool)
        mine = nodes.site == number
        position_M, feature_M = (
            nodes.position[mine],
            nodes.feature[mine] % (site.sae.n_features + 1),
        )
        everywhere = position_M < 0
        mask[:, feature_M[everywhere]] = True
        mask[position_M[~everywhere], feature_M[~everywhere]] = True
        masks_by_site.append(mask)
    return masks_by_site


def _edits(site: Site, mean: Means, mask: Tensor) -> list[tuple[str, Edit]]:
    """Edits that put the means in the place of the nodes outside the mask; position 0 passes
    untouched."""
    W_FD = site.sae.W_dec.detach()
    mask = mask.to(W_FD.device)
    seen: dict[str, Tensor] = {}
    filled_TD = mean.features.masked_fill(mask[:, :-1], 0) @ W_FD + site.sae.b_dec.detach()

    def remember(acts: Tensor) -> None:
        seen["read"] = acts.flatten(2)

    def replace(acts: Tensor) -> Tensor:
        code, shift_PTD, error_PTD, skip_PTD = split(site.sae, seen["read"], acts.flatten(2))
        kept_N = mask[code.tokens % len(mask), code.features]
        kept_PTD = spmm(code.with_values(torch.where(kept_N, code.values, 0)), W_FD).view_as(
            shift_PTD
        )
        error_PTD = torch.where(mask[:, -1:], error_PTD, mean.error)
        changed = (kept_PTD + filled_TD + skip_PTD + error_PTD).view(acts.shape)
        changed[:, 0] = acts[:, 0]
        return changed

    return [(site.read, remember), (site.write, replace)]


@torch.no_grad()
def ablated(
    model: Any, task: Task, sites: list[Site], averages: list[Means], kept: list[Tensor]
) -> Tensor:
    """The task's metric per prompt [P] with every node outside `kept` (see `masks`) at its mean;
    the others are recomputed."""
    parts = zip(sites, averages, kept, strict=True)
    edits = [edit for site, mean, mask in parts for edit in _edits(site, mean, mask)]
    return measure(task, running.logits(model, task.clean, edits, last=True))


def _share(sums: np.ndarray) -> np.ndarray:
    """(m(C) - m(empty)) / (m(M) - m(empty)) from summed [m(C), m(empty), m(M)]."""
    return (sums[..., 0] - sums[..., 1]) / (sums[..., 2] - sums[..., 1])


def curve(
    model: Any,
    task: Task,
    sites: list[Site],
    nodes: Nodes,
    sizes: Sequence[int],
    start: int = 0,
    seed: int = 0,
) -> Curve:
    """Faithfulness and completeness of the first n nodes, for each n of sizes.

    Faithfulness (m(C) - m(empty)) / (m(M) - m(empty)): only C is left; completeness: the same of
    all nodes but C, so 0 where nothing is missing. start: sites before this number stay whole in
    both, as published for early layers. Raises UsageError where m(M) and m(empty) are too close
    together to divide by.
    """
    averages, length = means(model, task, sites), task.clean.shape[1]
    weights_RP = weights(len(task.clean), seed)

    def metric(kept: list[Tensor]) -> Tensor:
        return ablated(model, task, sites[start:], averages[start:], kept[start:])

    none = masks(nodes.top(0), sites, length)
    empty_P, clean_P = metric(none), metric([~mask for mask in none])
    gap = float((clean_P - empty_P).mean())
    if abs(gap) < LEAST * float(clean_P.std() + empty_P.std()) or not abs(gap) > 0:
        values = (
            f"{float(clean_P.mean()):.3f} and {float(empty_P.mean()):.3f} with every node "
            "mean-ablated"
        )
        raise UsageError(
            f"task {task.name}: the model's metric is {values}: too close together to divide by; "
            "take another task, or SAEs of hooks that matter to it"
        )

    def ratio(found_P: Tensor) -> Estimate:
        return over_documents(
            torch.stack([found_P, empty_P, clean_P], 1).double().cpu().numpy(), _share, weights_RP
        )

    points = []
    for size in sizes:
        kept = masks(nodes.top(size), sites, length)
        points.append(Point(size, ratio(metric(kept)), ratio(metric([~mask for mask in kept]))))
    return Curve(ablation.mean(clean_P, seed), ablation.mean(empty_P, seed), points)
