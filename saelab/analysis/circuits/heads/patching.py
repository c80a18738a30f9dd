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

from saelab.analysis.circuits.heads import ablation
from saelab.analysis.circuits.heads.stream import Hook, Site, run_from, sites, split_inputs, written
from saelab.models import running
from saelab.tasks import Task, measure


def node_scores(model: Any, task: Task) -> tuple[Tensor, Tensor]:
    """Mean scores of the heads [L, H] and of the MLPs [L]: one run for each."""
    given, n_layers, n_heads = (
        ablation.stand_ins(model, task),
        model.cfg.n_layers,
        model.cfg.n_heads,
    )
    clean_P = ablation.run(model, task, given)
    heads = torch.eye(n_layers * n_heads, dtype=torch.bool).unflatten(1, (n_layers, n_heads))
    mlps = torch.eye(n_layers, dtype=torch.bool)
    heads_LH = torch.stack(
        [(clean_P - ablation.run(model, task, given, one_LH)).mean() for one_LH in heads]
    )
    mlps_L = torch.stack(
        [(clean_P - ablation.run(model, task, given, mlps_L=one_L)).mean() for one_L in mlps]
    )
    return heads_LH.unflatten(0, (n_layers, n_heads)), mlps_L


@torch.no_grad()
def edge_scores(model: Any, task: Task) -> Tensor:
    """Mean scores [U, R] of all edges, 0 where the reader comes before the writer: one run for each
    edge, from its layer on."""
    clean_UPTD = written(model, task.clean)
    change_UPTD = clean_UPTD - written(model, task.corrupted)
    columns, metric = [], measure(task, running.logits(model, task.clean, last=True)).mean()
    with split_inputs(model):
        for site in sites(model):
            stream_PTD = entering(model, task, site.layer)
            for reader in range(site.width):
                edits = [
                    _less(site, reader, change_PTD) for change_PTD in change_UPTD[: site.n_writers]
                ]
                runs = [run_from(model, site.layer, stream_PTD, [edit]) for edit in edits]
                column = [metric - measure(task, logits_PV).mean() for logits_PV in runs]
                columns.append(
                    torch.stack(
                        column + [torch.zeros_like(metric)] * (len(change_UPTD) - len(column))
                    )
                )
    return torch.stack(columns, 1)


def entering(model: Any, task: Task, layer: int) -> Tensor:
    """The stream [P, T, D] of the clean prompts as it enters a layer."""
    return running.read(model, task.clean, [f"blocks.{layer}.hook_in"])[f"blocks.{layer}.hook_in"]


def _less(site: Site, reader: int, change_PTD: Tensor) -> Hook:
    """An edit that takes a change out of what one reader of a site sees."""

    def edit(acts: Tensor) -> Tensor:
        if acts.ndim == 3:
            return acts - change_PTD
        acts = acts.clone()
        acts[:, :, reader] -= change_PTD
        return acts

    return site.hook, edit
