"""A task's sparse feature circuit from start to end: nodes, edges, and how faithful and complete it
is on other prompts.

Source: Marks et al. 2024, "Sparse Feature Circuits". Shapes: B tokens, D width, F features, H
heads, L layers, M nodes, N pairs.
"""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.features import curve as feature_curve
from saelab.analysis.circuits.features import edges as feature_edges
from saelab.analysis.circuits.features import effects
from saelab.analysis.circuits.features.curve import Curve
from saelab.analysis.circuits.features.effects import Change, Effects, Nodes
from saelab.analysis.parts import Site, sites
from saelab.errors import UsageError
from saelab.sae import SAE
from saelab.tasks import Task

SIZES = (1, 3, 10, 30, 100, 300, 1000, 3000)
EDGE_PROMPTS = 16


class FeatureCircuit(NamedTuple):
    """A circuit of features."""

    hooks: list[str]
    """what Nodes.site counts"""
    nodes: Nodes
    """all, strongest first"""
    edges: Tensor
    """[m + 1, m], see `edges`, among the m strongest"""
    curve: Curve
    """on the held-out prompts"""
    heads: Tensor | None
    """[L, H], see `head_scores`; None unless every layer's head outputs have an SAE"""


def feature_circuit(
    model: Any,
    task: Task,
    held_out: Task,
    saes: list[SAE],
    *,
    n_edge_nodes: int = 60,
    sizes: Sequence[int] = SIZES,
    steps: int = effects.STEPS,
    by_position: bool = False,
    start: int = 0,
    seed: int = 0,
) -> FeatureCircuit:
    """Find the circuit on `task`, test it on `held_out`; the number of nodes is the threshold.

    by_position needs aligned prompts: one length, the same role at each position. Raises UsageError
    as `sites` and `curve` do.
    """
    if by_position and task.clean.shape[1] != held_out.clean.shape[1]:
        lengths = f"{task.clean.shape[1]} and {held_out.clean.shape[1]} tokens"
        raise UsageError(f"nodes by position need prompts of one length: these have {lengths}")
    places = sites(model, saes)
    changes, effects_by_site = effects.effects(model, task, places, steps)
    nodes = effects.rank(effects_by_site, by_position=by_position)
    some = task.part(slice(0, EDGE_PROMPTS))
    edges = feature_edges.edges(
        model, some, places, nodes.top(n_edge_nodes), changes, effects_by_site
    )
    points = sorted({0, *(size for size in sizes if size < len(nodes.effect)), len(nodes.effect)})
    curve = feature_curve.curve(model, held_out, places, nodes, points, start, seed)
    heads_LH = head_scores(model, places, changes, effects_by_site)
    return FeatureCircuit([site.write for site in places], nodes, edges, curve, heads_LH)


def head_scores(
    model: Any, places: list[Site], changes: list[Change], effects_by_site: list[Effects]
) -> Tensor | None:
    """[L, H]: the features' |indirect effect| through each head; None unless every layer's
    concatenated head outputs are a site.

    A feature's effect splits over heads because it is a dot product with its decoder row: one slice
    per head.
    """
    scores_LH = torch.full((model.cfg.n_layers, model.cfg.n_heads), torch.nan)  # on the CPU
    for site, moved, one in zip(places, changes, effects_by_site, strict=True):
        if not (layer := re.fullmatch(r"blocks\.(\d+)\.attn\.(o\.hook_in|hook_z)", site.write)):
            continue
        code, gradient_BD = moved.code, one.gradient.flatten(0, 1)
        products_ND = site.sae.W_dec.detach()[code.features] * gradient_BD[code.tokens]
        parts_NH = (
            products_ND.view(len(products_ND), model.cfg.n_heads, -1).sum(2) * code.values[:, None]
        )
        sums_FH = parts_NH.new_zeros(code.n_features, model.cfg.n_heads)
        sums_FH = sums_FH.index_add_(0, code.features, parts_NH)
        scores_LH[int(layer[1])] = sums_FH.abs().sum(0) / len(one.error)
    return None if scores_LH.isnan().any() else scores_LH
