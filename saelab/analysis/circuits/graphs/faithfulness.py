"""How far what attribution graphs foretell holds, over the features that matter most, and over
prompts.

Source: Ameisen et al. 2025 (perturbation experiments). Shapes: R ablations, K logit nodes, M nodes,
P prompts.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.analysis.circuits.graphs import influence, intervention
from saelab.analysis.circuits.graphs.apart import Local
from saelab.analysis.circuits.graphs.graph import FEATURE, Graph
from saelab.statistics import Estimate, over_documents, weights

FEATURES = 20  # of most influence, each ablated alone
ALIKE = 2.0  # a control's activation is at most so many times larger or smaller


class Trials(NamedTuple):
    """Features of one graph, each ablated alone, beside others of their layer and position."""

    features: Tensor
    """[R] nodes, of most influence first"""
    controls: Tensor
    """[R] nodes: for each another active feature of its layer and position, of alike size"""
    effects: intervention.Check
    """of the features, [R, K]"""
    controlled: intervention.Check
    """of the controls, [R, K]"""


class Agreement(NamedTuple):
    """Foretold against measured changes, with 95% intervals over prompts."""

    correlation: Estimate
    """Pearson's; null: with the changes measured of the controls"""
    slope: Estimate
    """measured change per foretold change: least squares through 0"""


def trials(
    model: Any,
    local: Local,
    graph: Graph,
    n: int = FEATURES,
    seed: int = 0,
    conditions: Mapping[str, intervention.Condition] = intervention.COLUMNS,
) -> Trials:
    """Ablate the n features of most influence on the output, each alone, and a control of each.

    A control is drawn at random among the active features of the same hook and position whose
    activation is within a factor of ALIKE (the nearest where there is none). Features that are
    alone at their position are left out.

    >>> one = trials(model, local, graph(model, local))
    """
    nodes = graph.nodes
    weights_M = influence.output_weights(graph)
    reach_M = influence.influence(influence.shares(graph.edges), weights_M)
    reach_M = torch.where(nodes.kind == FEATURE, reach_M, 0)
    draw = torch.Generator().manual_seed(seed)
    features, controls = [], []
    for node in reach_M.argsort(descending=True, stable=True).tolist():
        if len(features) == n or not reach_M[node] > 0:
            break
        control = _control(graph, node, draw)
        if control is not None:
            features.append(node)
            controls.append(control)
    nodes_R, controls_R = (torch.tensor(each, dtype=torch.int64) for each in (features, controls))
    ablated_RM = torch.nn.functional.one_hot(torch.cat([nodes_R, controls_R]), len(nodes.kind))
    both = intervention.check(model, local, graph, ablated_RM.bool(), conditions)
    split = len(features)
    mine, theirs = (
        intervention.Check(
            both.predicted[half], {name: column[half] for name, column in both.measured.items()}
        )
        for half in (slice(split), slice(split, None))
    )
    return Trials(nodes_R, controls_R, mine, theirs)


def _control(graph: Graph, node: int, draw: torch.Generator) -> int | None:
    nodes = graph.nodes
    beside_M = (nodes.kind == FEATURE) & (nodes.place == nodes.place[node])
    beside_M &= nodes.position == nodes.position[node]
    beside_M[node] = False
    others_n = beside_M.nonzero().flatten()
    if not len(others_n):
        return None
    ratio_n = (nodes.value[others_n].abs() / nodes.value[node].abs()).log().abs()
    alike_n = others_n[ratio_n <= np.log(ALIKE)]
    if not len(alike_n):
        return int(others_n[ratio_n.argmin()])
    return int(alike_n[torch.randint(len(alike_n), (1,), generator=draw)])


def agreement(every: Sequence[Trials], seed: int = 0) -> dict[str, Agreement]:
    """For each condition that was measured how far it agrees with what was foretold, over the
    ablations and logits of all prompts.

    >>> agreement([trials(model, *one) for one in traced])["model"].correlation
    """
    weights_RP = weights(len(every), seed)
    by_column = {}
    for column in every[0].effects.measured:
        mine = np.stack([_sums(one.effects, one.effects.measured[column]) for one in every])
        other = np.stack([_sums(one.effects, one.controlled.measured[column]) for one in every])
        chance = float(_correlation(other.sum(0)))
        by_column[column] = Agreement(
            over_documents(mine, _correlation, weights_RP, chance),
            over_documents(mine, _slope, weights_RP),
        )
    return by_column


def _sums(effects: intervention.Check, measured_RK: Tensor) -> np.ndarray:
    """n, and the sums of x, y, xx, yy and xy: x foretold, y measured."""
    x, y = effects.predicted.double().flatten(), measured_RK.double().flatten()
    sums = [torch.tensor(float(len(x))), x.sum(), y.sum(), x @ x, y @ y, x @ y]
    return torch.stack([value.double() for value in sums]).numpy()


def _correlation(sums: np.ndarray) -> np.ndarray:
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):  # where nothing was ablated: NaN
        return (n * xy - x * y) / np.sqrt((n * xx - x * x) * (n * yy - y * y))


def _slope(sums: np.ndarray) -> np.ndarray:
    with np.errstate(divide="ignore", invalid="ignore"):
        return sums[..., 5] / sums[..., 3]
