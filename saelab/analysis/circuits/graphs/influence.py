"""Which nodes of an attribution graph matter for its output, how much of that the features explain,
and the graph's core.

Source: Ameisen et al. 2025, "Circuit Tracing" (influence, pruning, replacement and completeness
scores). Shapes: M nodes.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph

NODE_SHARE, EDGE_SHARE = 0.8, 0.98


class Scores(NamedTuple):
    """replacement: I(tokens) / (I(tokens) + I(errors)), the share of influence that comes from
    tokens and so through features.

    floor: the same when every feature counts to the error of its hook and position; never 0,
    because tokens reach logits by attention alone. completeness: mean share of a feature's or
    logit's inputs that are not errors, weighted by influence. circuit_tracer_completeness: the same
    over all nodes, as that library computes it: errors and tokens, which have no inputs, count as
    fully explained.
    """

    replacement: float
    floor: float
    completeness: float
    circuit_tracer_completeness: float


class Core(NamedTuple):
    """nodes [M] bool, edges [M, M] bool: what pruning keeps."""

    nodes: Tensor
    edges: Tensor


def shares(edges: Tensor) -> Tensor:
    """|edges| with every row that is not empty adding up to 1."""
    size = edges.abs().double()
    return size / size.sum(1, keepdim=True).clamp_min(1e-300)


def output_weights(graph: Graph) -> Tensor:
    """[M] float64: the probability of logit nodes, 0 elsewhere."""
    return torch.where(graph.nodes.kind == LOGIT, graph.nodes.value, 0.0).double()


def influence(shares: Tensor, weights_M: Tensor) -> Tensor:
    """[M]: w (S + S^2 + ...), the share of the output that passes through a node, over all paths.

    The graph has no cycle, so that the sum ends; and every row adds up to 1, so that tokens and
    errors together have sum(w).
    """
    total, reached = torch.zeros_like(weights_M), weights_M @ shares
    while reached.any():
        total, reached = total + reached, reached @ shares
    return total


def _without_features(graph: Graph) -> Tensor:
    """[M] influence when every feature's contribution is added to the error of its hook and
    position: only logits have inputs then."""
    kind, place, position = graph.nodes.kind, graph.nodes.place, graph.nodes.position
    length = int(position.max()) + 1
    keys, errors = place * length + position, (kind == ERROR).nonzero().flatten()
    owner = torch.zeros(int(keys[errors].max()) + 1, dtype=torch.int64)
    owner[keys[errors]] = errors
    features, logits = (kind == FEATURE).nonzero().flatten(), (kind == LOGIT).nonzero().flatten()
    inputs_KM = graph.edges[logits]
    moved_KM = inputs_KM.index_add(1, owner[keys[features]], inputs_KM[:, features])
    moved_KM[:, features] = 0
    return output_weights(graph)[logits] @ shares(moved_KM)


def _replacement(kind_M: Tensor, influence_M: Tensor) -> float:
    tokens, errors = (float(influence_M[kind_M == kind].sum()) for kind in (TOKEN, ERROR))
    return tokens / (tokens + errors)


def scores(graph: Graph) -> Scores:
    """How much of the output the features explain.

    Completeness leaves out errors and tokens, whose empty rows would count as fully explained.
    """
    weights_M, kind = output_weights(graph), graph.nodes.kind
    parts = shares(graph.edges)
    influence_M = influence(parts, weights_M)
    floor = _replacement(kind, _without_features(graph))
    all_M = influence_M + weights_M
    by_M = torch.where((kind == FEATURE) | (kind == LOGIT), all_M, 0)
    complete_M = 1 - parts[:, kind == ERROR].sum(1)
    completeness, theirs = (float((complete_M * w).sum() / w.sum()) for w in (by_M, all_M))
    return Scores(_replacement(kind, influence_M), floor, completeness, theirs)


def cumulative(influence_M: Tensor) -> Tensor:
    """[M]: the share of all influence that a node and those of more have together."""
    order = influence_M.argsort(descending=True, stable=True)
    shares_M = torch.empty_like(influence_M)
    shares_M[order] = influence_M[order].cumsum(0) / influence_M.sum().clamp_min(1e-300)
    return shares_M


def _leading(values: Tensor, share: float) -> Tensor:
    """Which of the values, none negative, make up `share` of their sum, largest first."""
    kept = torch.zeros_like(values, dtype=torch.bool)
    some = values.nonzero(as_tuple=True)  # most links are 0, which need no sorting
    some_n = values[some]
    order = some_n.argsort(descending=True, stable=True)
    before_n = some_n[order].cumsum(0) - some_n[order]
    first = order[before_n < share * values.sum()]
    kept[tuple(index[first] for index in some)] = True
    return kept


def prune(graph: Graph, node_share: float = NODE_SHARE, edge_share: float = EDGE_SHARE) -> Core:
    """The nodes that carry `node_share` of the influence (tokens and logits stay) and the edges
    that carry `edge_share` of it.

    Then features and errors that lead nowhere, and features that nothing leads to, are dropped
    until none is left.
    """
    weights_M, kind = output_weights(graph), graph.nodes.kind
    fixed = (kind == TOKEN) | (kind == LOGIT)
    nodes = fixed | _leading(influence(shares(graph.edges), weights_M), node_share)
    (mine,) = nodes.nonzero(as_tuple=True)
    parts = shares(graph.edges[mine[:, None], mine])
    weighted = parts * (influence(parts, weights_M[mine]) + weights_M[mine])[:, None]
    edges = torch.zeros_like(graph.edges, dtype=torch.bool)
    edges[mine[:, None], mine] = _leading(weighted, edge_share)
    while True:
        lost = nodes & ~fixed & ~edges.any(0) | nodes & (kind == FEATURE) & ~edges.any(1)
        if not lost.any():
            return Core(nodes, edges)
        nodes = nodes & ~lost
        edges = edges & nodes & nodes[:, None]
