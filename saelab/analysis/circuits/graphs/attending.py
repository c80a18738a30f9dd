"""Why heads attend: the attention edge that brings a node of a graph most, its score split over
pairs of nodes.

A node's pre-activation (an output's centred logit) holds what every head writes at its position; an
attention edge is one head's part from one source position. Its score before the softmax is
bilinear in what stands at both ends, and what stands there is a sum over the graph's nodes, so that
the pairs of nodes, with what no node explains, add up to it. Patterns, norms and MLP outputs are
held. Source: Kamath et al. 2025, "Tracing Attention Computation Through Feature Interactions".
Shapes: T positions, S source positions, H heads, E width of a head, D width, M nodes that are no
outputs, R targets, C columns.
"""

from functools import cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.attention import query_key
from saelab.analysis.attention.query_key import Place
from saelab.analysis.circuits.graphs import influence
from saelab.analysis.circuits.graphs.apart import Local
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, Graph, inputs
from saelab.models import resolve_hook

EDGES = 5  # of a node, listed
PAIRS = 10  # of an edge, listed
NODES = 20  # traced in a graph unless told otherwise
ROWS = 256  # query nodes whose pairs are held at once


class Edge(NamedTuple):
    """What a head brings a node from one position."""

    at: Place
    pattern: float
    """share of the head's attention that goes there"""
    weight: float
    """what the head writes along it, in the units of the node's pre-activation"""


class Split(NamedTuple):
    """An edge's score over the graph's nodes."""

    queries_ME: Tensor
    """each node's part of the query; the last row is what none brings"""
    keys_ME: Tensor
    """each node's part of the key, likewise"""
    score: float
    """before the softmax, as the model computes it"""

    def pairs(self, most: int) -> list[tuple[int, int, float]]:
        """(query node, key node, their part of the score), the largest parts by size."""
        found = []
        queries_ME, keys_ME = self.queries_ME[:-1], self.keys_ME[:-1]
        for start, rows_RE in enumerate(queries_ME.split(ROWS)):
            parts_RM = rows_RE @ keys_ME.T / self.queries_ME.shape[1] ** 0.5
            for place in parts_RM.abs().flatten().topk(min(most, parts_RM.numel())).indices:
                row, column = divmod(int(place), parts_RM.shape[1])
                found.append((start * ROWS + row, column, float(parts_RM[row, column])))
        return sorted(found, key=lambda pair: -abs(pair[2]))[:most]

    def marginals(self, query: bool) -> Tensor:
        """[M]: what the score loses without each node's query (key), the last without what no node
        brings; they add up to the score."""
        mine_ME, theirs_ME = self.queries_ME, self.keys_ME
        if not query:
            mine_ME, theirs_ME = theirs_ME, mine_ME
        return mine_ME @ theirs_ME.sum(0) / mine_ME.shape[1] ** 0.5

    def rest(self) -> float:
        """What no pair of nodes explains of the score."""
        between = self.queries_ME[:-1].sum(0) @ self.keys_ME[:-1].sum(0)
        return self.score - float(between) / self.queries_ME.shape[1] ** 0.5


def leading(drawn: Graph, kept_M: Tensor, most: int) -> Tensor:
    """[R]: the kept features and outputs of most influence, an output's being its probability."""
    weights_M = influence.output_weights(drawn)
    reach_M = influence.influence(influence.shares(drawn.edges), weights_M) + weights_M
    targets_M = (drawn.nodes.kind == FEATURE) | (drawn.nodes.kind == LOGIT)
    ranked = torch.where(targets_M & kept_M, reach_M, 0).argsort(descending=True, stable=True)
    return ranked[: min(most, int((targets_M & kept_M).sum()))]


def edges(model: Any, local: Local, drawn: Graph, targets_R: Tensor) -> dict[int, list[Edge]]:
    """The attention edges that write most into each target, largest |weight| first.

    >>> edges(model, local, drawn, leading(drawn, core.nodes, 20))
    """
    layers = range(model.cfg.n_layers)
    z = [resolve_hook(model, f"blocks.{layer}.attn.hook_z") for layer in layers]
    v = [f"blocks.{layer}.attn.hook_v" for layer in layers]
    acts = frozen.run(model, local.held, {}, [*z, *v])
    brought: dict[int, list[Edge]] = {}
    for read, mine_R, W_RD in _functionals(local, drawn, targets_R):
        positions_R = drawn.nodes.position[mine_R]
        weights_RC, places_C = [], []
        for layer, g_RD in _along_heads(model, local, read, positions_R, W_RD, z, acts).items():
            pattern_RHS = local.held.held[f"blocks.{layer}.attn.hook_pattern"][0][:, positions_R]
            pattern_RHS = pattern_RHS.transpose(0, 1)
            n_heads = pattern_RHS.shape[1]
            v_SKE = acts[v[layer]][0].unflatten(1, (-1, model.cfg.d_head))
            v_SHE = v_SKE.repeat_interleave(n_heads // v_SKE.shape[1], 1)
            g_RHE = g_RD.unflatten(1, (n_heads, -1))
            parts_RHS = pattern_RHS * torch.einsum("she,rhe->rhs", v_SHE, g_RHE)
            weights_RC.append(parts_RHS.flatten(1))
            places_C += [(layer, h, s) for h in range(n_heads) for s in range(len(v_SHE))]
        if weights_RC:
            brought |= _strongest(local, mine_R, positions_R, torch.cat(weights_RC, 1), places_C)
    return brought


def _functionals(local: Local, drawn: Graph, targets_R: Tensor) -> list[tuple[str, Tensor, Tensor]]:
    """Of each hook that targets read: the hook, those targets, their functionals [r, D]."""
    kinds, found = drawn.nodes.kind[targets_R], []
    for number, place in enumerate(local.places):
        mine_r = targets_R[(kinds == FEATURE) & (drawn.nodes.place[targets_R] == number)]
        if place.site and len(mine_r):
            W_rD = place.site.sae.W_enc.detach()[drawn.nodes.number[mine_r]]
            found.append((place.site.read, mine_r, W_rD))
    mine_r = targets_R[kinds == LOGIT]
    if len(mine_r):
        n_words = len(local.logits)
        outputs_rV = torch.nn.functional.one_hot(drawn.nodes.number[mine_r], n_words)
        found.append((frozen.LOGITS, mine_r, (outputs_rV - 1 / n_words).to(local.logits)))
    return found


def _along_heads(
    model: Any,
    local: Local,
    read: str,
    positions_R: Tensor,
    W_RD: Tensor,
    z: list[str],
    acts: dict[str, Tensor],
) -> dict[int, Tensor]:
    """By layer [R, H E]: the gradients of functionals by what heads give at the functional's own
    position, through nothing but the residual stream."""
    if read in z:  # an SAE on the heads themselves
        return {z.index(read): W_RD}
    reading = frozen.reading(model, local.held, {name: acts[name][0] for name in z}, read)
    gradients = reading.rows(positions_R, W_RD).gradients
    at_R = torch.arange(len(W_RD))
    found = {layer: gradients[name] for layer, name in enumerate(z) if name in gradients}
    return {layer: gradient_RTD[at_R, positions_R] for layer, gradient_RTD in found.items()}


def _strongest(
    local: Local, mine_R: Tensor, positions_R: Tensor, weights_RC: Tensor, places_C: list
) -> dict[int, list[Edge]]:
    found = {}
    for target, dest, weights_C in zip(
        mine_R.tolist(), positions_R.tolist(), weights_RC, strict=True
    ):
        listed = []
        for at in weights_C.abs().topk(min(EDGES, len(weights_C))).indices.tolist():
            layer, head, src = places_C[at]
            pattern_HTS = local.held.held[f"blocks.{layer}.attn.hook_pattern"][0]
            share = float(pattern_HTS[head, dest, src])
            listed.append(Edge(Place(layer, head, dest, src), share, float(weights_C[at])))
        found[target] = listed
    return found


class Splitter:
    """Splits scores of one prompt; ends that edges share are taken apart once."""

    def __init__(self, model: Any, local: Local) -> None:
        self._model, self._local = model, local
        self._end = cache(self._parts)

    def split(self, at: Place) -> Split:
        """The score of an edge over all nodes. Raises UsageError as `query_key` does.

        >>> Splitter(model, local).split(edges(model, local, drawn, targets_R)[7][0].at)
        """
        whole = query_key.score(self._model, self._local.held, at)
        (read_q, of_q), (read_k, of_k) = query_key.reads(self._model, at)
        queries_ME = self._end(read_q, of_q.start, of_q.stop, at.dest)
        keys_ME = self._end(read_k, of_k.start, of_k.stop, at.src)
        found = Split(queries_ME, keys_ME, whole)
        query_key.check(found.marginals(True).sum(), whole, found.marginals(True).abs().max())
        return found

    def _parts(self, read: str, first: int, last: int, position: int) -> Tensor:
        """[M + 1, E]: every node's part of a head's query or key; the last row what none brings."""
        x_TD = frozen.run(self._model, self._local.held, {}, [read])[read][0]
        pick_ED = torch.eye(x_TD.shape[1], dtype=x_TD.dtype, device=x_TD.device)[first:last]
        at_E = torch.full((last - first,), position)
        parts_EM, rest_E = inputs(self._model, self._local, read, at_E, pick_ED)
        return torch.cat([parts_EM.T, rest_E[:, None].T])
