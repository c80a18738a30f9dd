"""Sparse feature circuits: how much each SAE feature, and what the SAEs leave unexplained, matters
for a task.

Source: Marks et al. 2024, "Sparse Feature Circuits", sections 2 and 3.
Shapes: P prompts, T positions, D width, N pairs, M nodes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.parts import Parts, Site, split
from saelab.code import Code
from saelab.kernels import sddmm
from saelab.tasks import Task, measure

STEPS = 10
ERROR = -1  # the feature number of error nodes


class Change(NamedTuple):
    """What a site's parts become when the corrupted prompt's are put in."""

    code: Code
    """the change of each feature"""
    error: Tensor
    """[P, T, D] that of the error"""


class Effects(NamedTuple):
    """Indirect effects at one site."""

    code: Code
    """on pairs of the P x T tokens"""
    error: Tensor
    """[P, T] of the error nodes"""
    gradient: Tensor
    """[P, T, D] the path's mean"""


class Nodes(NamedTuple):
    """Nodes by falling |effect|."""

    site: Tensor
    """[M] number of the site"""
    position: Tensor
    """[M] -1 stands for all"""
    feature: Tensor
    """[M] ERROR is the error node"""
    effect: Tensor
    """[M] mean over prompts of the change of the metric, in its unit, when the node takes its value
    on the corrupted prompt"""

    def top(self, n: int) -> "Nodes":
        """The n first."""
        return Nodes(*(column[:n] for column in self))


def record(model: Any, tokens_PT: Tensor, sites: list[Site]) -> list[tuple[Tensor, Tensor]]:
    """For each site what its SAE reads and what it explains, [P, T, D] each, on unchanged
    prompts."""
    names = [name for site in sites for name in (site.read, site.write)]
    with torch.no_grad():
        acts = frozen.run(model, frozen.Frozen(tokens_PT, {}), {}, names)
    return [(acts[site.read].clone(), acts[site.write].clone()) for site in sites]


def subtract(a: Code, b: Code) -> Code:
    """a - b on the union of their pairs."""
    keys_N, inverse_N = torch.cat([c.tokens * c.n_features + c.features for c in (a, b)]).unique(
        return_inverse=True
    )
    values_N = a.values.new_zeros(len(keys_N)).index_add_(
        0, inverse_N, torch.cat([a.values, -b.values])
    )
    counts_B = torch.bincount(keys_N // a.n_features, minlength=a.n_tokens)
    starts = torch.cat([counts_B.new_zeros(1), counts_B.cumsum(0)])
    return Code(starts, keys_N % a.n_features, values_N, a.n_features)


def change(clean: Parts, corrupted: Parts) -> Change:
    """The change of the parts from clean to corrupted prompts; the decoder bias stays."""
    return Change(subtract(corrupted.code, clean.code), corrupted.error - clean.error)


def path_gradient(
    model: Any, task: Task, hook: str, clean_PTD: Tensor, corrupted_PTD: Tensor, steps: int = STEPS
) -> Tensor:
    """d metric / d activation at `hook`, averaged along the straight line from clean to corrupted
    activations, [P, T, D].

    Features and errors that move on straight lines move their sum on one, so one path serves all
    nodes of the hook. Midpoints of `steps` equal pieces: the missing part of the change falls as 1
    / steps^2 (left ends, as published: 1 / steps).
    """
    total_PTD = torch.zeros_like(clean_PTD)
    for step in range(steps):
        leaf_PTD = torch.lerp(clean_PTD, corrupted_PTD, (step + 0.5) / steps).requires_grad_()
        with torch.enable_grad():
            logits = frozen.run(
                model, frozen.Frozen(task.clean, {}), {hook: leaf_PTD}, [frozen.LOGITS]
            )[frozen.LOGITS]
            (gradient_PTD,) = torch.autograd.grad(measure(task, logits).sum(), leaf_PTD)
        total_PTD += gradient_PTD / steps
    return total_PTD


def effects(
    model: Any, task: Task, sites: list[Site], steps: int = STEPS
) -> tuple[list[Change], list[Effects]]:
    """The indirect effect of every node of every site, each site's by its own path while the others
    stay as they are.

    Over the nodes of a prompt at one site they add up to metric(corrupted activations there) -
    metric(clean), up to the steps.
    """
    clean, corrupted = record(model, task.clean, sites), record(model, task.corrupted, sites)
    changes, by_site = [], []
    for site, before, after in zip(sites, clean, corrupted, strict=True):
        moved = change(split(site.sae, *before), split(site.sae, *after))
        gradient_PTD = path_gradient(model, task, site.write, before[1], after[1], steps)
        # A feature's effect: its change times the gradient along its decoder row.
        slope_N = sddmm(gradient_PTD.flatten(0, 1), site.sae.W_dec.detach(), moved.code)
        features = moved.code.with_values(moved.code.values * slope_N)
        changes.append(moved)
        by_site.append(Effects(features, (gradient_PTD * moved.error).sum(2), gradient_PTD))
    return changes, by_site


def rank(by_site: list[Effects], *, by_position: bool = False) -> Nodes:
    """All nodes with an effect. by_position: one node per position, for prompts that are aligned;
    otherwise positions add up."""
    tables = []
    for number, one in enumerate(by_site):
        n_prompts, length = one.error.shape
        # One integer per node, so that `unique` can group them: its position (0 for all where
        # positions add up) times the nodes there, plus its feature; the error comes after the last.
        width = one.code.n_features + 1
        at_N, at_PT = (
            one.code.tokens % length,
            torch.arange(length, device=one.error.device).expand_as(one.error),
        )
        features_N = at_N * by_position * width + one.code.features
        errors_PT = at_PT * by_position * width + width - 1
        keys_M, inverse = torch.cat([features_N, errors_PT.flatten()]).unique(return_inverse=True)
        # An effect is a mean over prompts, a prompt that lacks the node counting 0.
        values = torch.cat([one.code.values, one.error.flatten()]) / n_prompts
        effect_M = values.new_zeros(len(keys_M)).index_add_(0, inverse, values)
        position_M = keys_M // width if by_position else torch.full_like(keys_M, -1)
        feature_M = torch.where(keys_M % width == width - 1, ERROR, keys_M % width)
        tables.append((torch.full_like(keys_M, number), position_M, feature_M, effect_M))
    columns = Nodes(*(torch.cat(parts).cpu() for parts in zip(*tables, strict=True)))
    order = columns.effect.abs().argsort(descending=True, stable=True)
    return Nodes(*(column[order[columns.effect[order] != 0]] for column in columns))
