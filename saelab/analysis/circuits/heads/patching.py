"""Exact patching: the metric when one node, or one edge, carries its value on the corrupted twin,
measured by a run each.

A node's score is m(clean) - m(node resampled), its total effect (Vig et al. 2020; Meng et al.
2022). An edge's is the same when only one reader sees the writer's corrupted value and everything
downstream of that reader runs on (path patching; Goldowsky-Dill et al. 2023).

Shapes: P prompts, T positions, D width, L layers, H heads, U writers, R readers.
"""

from typing import Any

import torch
from torch import Tensor

from saelab.analysis.circuits.heads import ablation, attribution_patching
from saelab.analysis.circuits.heads.links import Stop, blank, likely_first, links, until
from saelab.analysis.circuits.heads.stream import (
    Hook,
    Site,
    by_layer,
    run_from,
    split_inputs,
    writers,
    written,
)
from saelab.models import running
from saelab.tasks import Task, measure


def node_scores(model: Any, task: Task, stop: Stop | None = None) -> tuple[Tensor, Tensor]:
    """Mean scores of the heads [L, H] and of the MLPs [L]: one run for each.

    stop: a budget, under which those with the largest attribution (AtP) come first and the others
    are NaN.
    """
    given, n_layers = ablation.stand_ins(model, task), model.cfg.n_layers
    clean_P = ablation.run(model, task, given)
    numbers_U = torch.arange(len(writers(model)))
    order = numbers_U[1:]
    if stop is not None:
        sizes_U = attribution_patching.node_scores(model, task).mean(0).abs().cpu()
        order = 1 + sizes_U[1:].argsort(descending=True, stable=True)
    scores_U = torch.full(numbers_U.shape, torch.nan, device=clean_P.device)
    for number in until(stop, order.tolist()):
        heads_LH, mlps_L = by_layer(numbers_U == number, n_layers)
        resampled_P = ablation.run(model, task, given, heads_LH, mlps_L)
        scores_U[number] = (clean_P - resampled_P).mean()
    return by_layer(scores_U, n_layers)


@torch.no_grad()
def edge_scores(model: Any, task: Task, stop: Stop | None = None) -> Tensor:
    """Mean scores [U, R] of all edges, 0 where the reader comes before the writer: one run for each
    edge, from its layer on.

    stop: a budget, under which those with the largest attribution (EAP) come first and the others
    are NaN.
    """
    clean_UPTD = written(model, task.clean)
    change_UPTD = clean_UPTD - written(model, task.corrupted)
    every = links(model)
    scores_UR = blank(every, len(change_UPTD)).to(change_UPTD.device)
    if stop is not None:
        every = likely_first(every, attribution_patching.edge_scores(model, task).mean(0))
    metric = measure(task, running.logits(model, task.clean, last=True)).mean()
    streams = Entering(model, task)
    with split_inputs(model):
        for site, reader, column, writer in until(stop, every):
            edit = _less(site, reader, change_UPTD[writer])
            logits_PV = run_from(model, site.layer, streams[site.layer], [edit])
            scores_UR[writer, column] = metric - measure(task, logits_PV).mean()
    return scores_UR


class Entering(dict[int, Tensor]):
    """By layer: the stream [P, T, D] of the clean prompts as it enters it, read when asked for."""

    def __init__(self, model: Any, task: Task) -> None:
        self.model, self.task = model, task

    def __missing__(self, layer: int) -> Tensor:
        name = f"blocks.{layer}.hook_in"
        self[layer] = running.read(self.model, self.task.clean, [name])[name]
        return self[layer]


def _less(site: Site, reader: int, change_PTD: Tensor) -> Hook:
    """An edit that takes a change out of what one reader of a site sees."""

    def edit(acts: Tensor) -> Tensor:
        if acts.ndim == 3:
            return acts - change_PTD
        acts = acts.clone()
        acts[:, :, reader] -= change_PTD
        return acts

    return site.hook, edit
