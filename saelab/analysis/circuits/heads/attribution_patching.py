"""Attribution patching: what replacing a node or an edge by its value on the corrupted twin would
do, from gradients.

AtP (Nanda 2023; Kramar et al. 2024): (clean - corrupted) activation times the metric's gradient in
the clean run, per node. EAP (Syed et al. 2023): the same per edge, with the gradient at the
reader's input. EAP-IG (Hanna et al. 2024, section 3): the gradient averaged over points between the
corrupted and the clean run: of the input embedding, or of the writers' own outputs ("activations").
Published code takes the left ends of n equal steps, among which the clean run never is.
Scores estimate m(clean) - m(patched): above 0, the node helps. The gradient at a writer is the sum
of those at its readers, so a writer's edges sum to its node score.

Shapes: P prompts, T positions, D width, U writers, R readers, G readers at one hook.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.heads.stream import (
    Hook,
    Site,
    gradients,
    parts,
    sites,
    split_inputs,
    starting_from,
    written,
)
from saelab.errors import UsageError
from saelab.models import running
from saelab.tasks import Task, measure

CLEAN = (1.0,)  # where AtP and EAP take the gradient: 0 is the corrupted and 1 the clean run
# Where gradients are taken in n equal steps from one to the other.
RULES: dict[str, Callable[[int], list[float]]] = {
    "left": lambda n: [step / n for step in range(n)],
    "midpoint": lambda n: [(step + 0.5) / n for step in range(n)],
    "right": lambda n: [(step + 1) / n for step in range(n)],
}


class Quadrature(NamedTuple):
    """How far gradients at some points are from the integral that they stand for."""

    n_points: int
    missing: float
    """|sum of the embedding's edges - (m(clean) - m(corrupted))| / |m(clean) - m(corrupted)|, both
    averaged over prompts"""


def between(rule: str, n: int) -> list[float]:
    """The n points of a rule of RULES. Raises UsageError, listing them, for an unknown one.

    >>> between("right", 4)
    [0.25, 0.5, 0.75, 1.0]
    """
    if rule not in RULES:
        raise UsageError(f"unknown points {rule!r}: there are {', '.join(RULES)}")
    return RULES[rule](n)


def quadrature(model: Any, task: Task, rule: str, n: int) -> Quadrature:
    """What n points of a rule miss of the change of the metric between the twins, all of which the
    embedding's edges carry."""
    with torch.no_grad():
        clean, corrupted = (
            running.logits(model, tokens, last=True) for tokens in (task.clean, task.corrupted)
        )
    change = float((measure(task, clean) - measure(task, corrupted)).mean())
    carried = float(node_scores(model, task, between(rule, n))[:, 0].mean())
    return Quadrature(n, abs(carried - change) / abs(change) if change else float("nan"))


def node_scores(model: Any, task: Task, points: Sequence[float] = CLEAN) -> Tensor:
    """Scores [P, U] of all writers: AtP, or with gradients averaged over input embeddings at other
    points."""
    return torch.cat([_nodes(model, part, points) for part in parts(task)])


def _nodes(model: Any, task: Task, points: Sequence[float]) -> Tensor:
    clean_UPTD, corrupted_UPTD = written(model, task.clean), written(model, task.corrupted)
    change_UPTD = clean_UPTD - corrupted_UPTD
    layers = range(model.cfg.n_layers)
    hooks = [
        "blocks.0.hook_in",
        *(f"blocks.{n}.{end}" for n in layers for end in ("hook_attn_out", "hook_mlp_out")),
    ]
    total = torch.zeros(change_UPTD.shape[1], len(change_UPTD), device=change_UPTD.device)
    for point in points:
        by_hook = gradients(
            model, task, hooks, [starting_from(corrupted_UPTD[0] + point * change_UPTD[0])]
        )
        each = [by_hook[0]] + [
            g
            for layer in layers
            for g in [by_hook[1 + 2 * layer]] * model.cfg.n_heads + [by_hook[2 + 2 * layer]]
        ]
        for u, gradient_PTD in enumerate(each):
            total[:, u] += (change_UPTD[u] * gradient_PTD).sum((1, 2))
    return total / len(points)


def edge_scores(model: Any, task: Task, points: Sequence[float] = CLEAN) -> Tensor:
    """Scores [P, U, R] of all edges, 0 where the reader comes before the writer: EAP, or at other
    points EAP-IG (inputs)."""
    with split_inputs(model):
        return torch.cat([_edges(model, part, points) for part in parts(task)])


def _edges(model: Any, task: Task, points: Sequence[float]) -> Tensor:
    clean_UPTD, corrupted_UPTD = written(model, task.clean), written(model, task.corrupted)
    change_UPTD = clean_UPTD - corrupted_UPTD
    places, gradient_sums = sites(model), None
    for point in points:
        start = starting_from(corrupted_UPTD[0] + point * change_UPTD[0])
        new = gradients(model, task, [place.hook for place in places], [start])
        gradient_sums = (
            new
            if gradient_sums is None
            else [a + b for a, b in zip(gradient_sums, new, strict=True)]
        )
    assert gradient_sums is not None
    return _scores(change_UPTD, places, gradient_sums) / len(points)


def _scores(change_UPTD: Tensor, places: list[Site], gradients: list[Tensor]) -> Tensor:
    """[P, U, R]: each writer's change along each later reader's gradient ([P, T, G, D] or [P, T,
    D])."""
    columns = []
    for place, gradient in zip(places, gradients, strict=True):
        gradient_PTGD = gradient.unflatten(2, (place.width, -1)) if gradient.ndim == 3 else gradient
        column_PUG = torch.einsum("uptd,ptgd->pug", change_UPTD[: place.n_writers], gradient_PTGD)
        columns.append(
            torch.nn.functional.pad(column_PUG, (0, 0, 0, len(change_UPTD) - column_PUG.shape[1]))
        )
    return torch.cat(columns, 2)


def edge_scores_by_activation(model: Any, task: Task, points: Sequence[float]) -> Tensor:
    """EAP-IG (activations), [P, U, R]: the gradients at a writer's readers, averaged over that
    writer's own interpolation.

    Writers of one kind and layer move together while everything before them is clean (Hanna et al.
    2024).
    """
    with split_inputs(model):
        return torch.cat([_edges_by_activation(model, part, points) for part in parts(task)])


def _edges_by_activation(model: Any, task: Task, points: Sequence[float]) -> Tensor:
    clean_UPTD, corrupted_UPTD = written(model, task.clean), written(model, task.corrupted)
    change_UPTD = clean_UPTD - corrupted_UPTD
    places, rows = sites(model), []
    for hook, first, last in stages(model):
        later = [place for place in places if place.n_writers >= last]
        step_PTD = change_UPTD[first:last].sum(0)
        gradient_sums = [torch.zeros(())] * len(later)
        for point in points:
            new = gradients(
                model, task, [place.hook for place in later], [_moved(hook, step_PTD * (point - 1))]
            )
            gradient_sums = [a + b for a, b in zip(gradient_sums, new, strict=True)]
        scores_PUR = _scores(change_UPTD[:last], later, gradient_sums)[:, first:]
        rows.append(
            torch.nn.functional.pad(
                scores_PUR, (sum(place.width for place in places) - scores_PUR.shape[2], 0)
            )
        )
    return torch.cat(rows, 1) / len(points)


def stages(model: Any) -> list[tuple[str, int, int]]:
    """(hook of their sum, first writer, last writer + 1) for the writers that compute side by
    side."""
    hooks, at = [("blocks.0.hook_in", 0, 1)], 1
    for layer in range(model.cfg.n_layers):
        for end, width in (("hook_attn_out", model.cfg.n_heads), ("hook_mlp_out", 1)):
            hooks.append((f"blocks.{layer}.{end}", at, at + width))
            at += width
    return hooks


def _moved(hook: str, by_PTD: Tensor) -> Hook:
    return hook, lambda acts: (acts + by_PTD).detach().requires_grad_()
