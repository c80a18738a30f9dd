"""Does an attribution graph foretell what ablating its features does: predicted against measured
change.

Source: Ameisen et al. 2025 (perturbation experiments).
Shapes: R ablations, T positions, B = R x T tokens, D width, N pairs, M nodes, K logit nodes,
V vocabulary.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, Graph, Local, Place
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import sddmm, spmm
from saelab.models import running
from saelab.models.running import Edit

ROWS = 16  # ablations run in one pass


class Condition(NamedTuple):
    """What an ablation is measured in."""

    replaced: bool
    """MLPs replaced by their features and stored errors; else they compute"""
    moving: frozenset[str]
    """of HOLDING, what is recomputed; all else stays as it was in the prompt's own run"""


HOLDING = {"patterns": "hook_pattern", "norms": "hook_scale", "features": "mlp.hook_out"}
ALL = frozenset(HOLDING)
COLUMNS = {
    # What attribution assumes: patterns, norms and the set of active features are held.
    "held": Condition(True, frozenset()),
    # Everything is recomputed, features included; errors stay as they were.
    "free": Condition(True, ALL),
    # The features' value x W_dec is subtracted where they are written, in the model itself.
    "model": Condition(False, ALL),
}
# Between "held" and "free" one thing at a time, then the model's own MLPs without and with the
# norms.
APART = {
    "patterns": Condition(True, frozenset({"patterns"})),
    "norms": Condition(True, frozenset({"norms"})),
    "features": Condition(True, frozenset({"features"})),
    "mlps": Condition(False, frozenset({"features"})),
    "no patterns": Condition(False, ALL - {"patterns"}),
}


class Check(NamedTuple):
    """Change of each logit node (minus the mean logit) when features are set to 0."""

    predicted: Tensor
    """[R, K] from the graph's edges"""
    measured: dict[str, Tensor]
    """[R, K] by the name of the condition"""


def predict(graph: Graph, ablated_RM: Tensor) -> Tensor:
    """[R, M]: how every feature's pre-activation and every logit changes when the marked features
    are set to 0.

    A feature passes its own change on, because its output is linear in its pre-activation while it
    stays active.
    """
    value_M = graph.nodes.value.double()
    slopes_MM = graph.edges.double()
    slopes_MM /= torch.where(graph.nodes.kind == FEATURE, value_M, 1.0)
    change_RM = torch.where(ablated_RM, -value_M, 0.0)
    total_RM = torch.zeros_like(change_RM)
    while change_RM.any():
        total_RM += change_RM
        change_RM = torch.where(ablated_RM, 0.0, change_RM @ slopes_MM.T)
    return total_RM.float()


def _replacing(place: Place, off_RN: Tensor, moving: bool) -> list[tuple[str, Edit]]:
    """Edits that recompute a place's features from what it reads and write them with the stored
    error; off_RN [R, N] are set to 0. moving: which of them are active is found anew."""
    assert place.site
    sae, parts, passing = place.site.sae, place.parts, place.site.passing()
    n_rows, length = len(off_RN), parts.code.n_tokens
    every = Code.concatenate([parts.code] * n_rows)
    stored_TD = (parts.shift + parts.error)[0]
    seen: dict[str, Any] = {}

    def key(code: Code) -> Tensor:
        """A number for each pair that no other pair of the R contexts has."""
        return code.tokens * sae.n_features + code.features

    off_keys = key(every)[off_RN.flatten()]

    def remember(acts: Tensor) -> None:
        x_BD = acts.flatten(2).flatten(0, 1)
        if moving:
            code = sae.encode(x_BD)
        else:
            centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec
            pre_N = sddmm(centred_BD, sae.W_enc, every) + sae.b_enc[every.features]
            code = every.with_values(pre_N)
        seen.update(x=x_BD.view(n_rows, length, -1), code=code)

    def write(acts: Tensor) -> Tensor:
        code: Code = seen["code"]
        off_N = torch.isin(key(code), off_keys) | (code.tokens % length == 0)
        values_N = torch.where(off_N, 0, code.values)
        written_RTD = spmm(code.with_values(values_N), sae.W_dec).view(n_rows, length, -1)
        written_RTD = written_RTD + stored_TD
        for way in passing.values():
            written_RTD = written_RTD + way.of(seen["x"])
        return written_RTD.view(acts.shape)

    return [(place.site.read, remember), (place.site.write, write)]


def _subtracting(place: Place, off_RN: Tensor) -> tuple[str, Edit]:
    """An edit that takes what the marked features write out of the model's own activation."""
    assert place.site
    code, W_FD = place.parts.code, place.site.sae.W_dec.detach()
    rows_n, pairs_n = off_RN.nonzero(as_tuple=True)
    written_nD = code.values[pairs_n, None] * W_FD[code.features[pairs_n]]
    at = rows_n, code.tokens[pairs_n]

    def subtract(acts: Tensor) -> Tensor:
        changed_RTD = acts.flatten(2).index_put(at, -written_nD, accumulate=True)
        return changed_RTD.view(acts.shape)

    return place.hook, subtract


def _by_place(local: Local, graph: Graph, ablated_RM: Tensor) -> list[tuple[Place, Tensor]]:
    """Each place that has features, and which of its pairs are marked [R, N]."""
    marked = []
    for number, place in enumerate(local.places):
        mine_M = (graph.nodes.kind == FEATURE) & (graph.nodes.place == number)
        if place.site:
            marked.append((place, ablated_RM[:, mine_M].to(place.parts.error.device)))
    return marked


@torch.no_grad()
def logits(
    model: Any, local: Local, graph: Graph, ablated_RM: Tensor, condition: Condition
) -> Tensor:
    """Logits [R, V] at the last position with the marked features set to 0.

    >>> logits(model, local, drawn, ablated_RM, COLUMNS["free"])
    """
    pieces = []
    ends = tuple(end for name, end in HOLDING.items() if name not in condition.moving)
    for piece_rM in ablated_RM.split(ROWS):
        marked = _by_place(local, graph, piece_rM)
        edits: list[tuple[str, Edit]] = []
        for place, off_rN in marked:
            if condition.replaced:
                edits += _replacing(place, off_rN, "features" in condition.moving)
            else:
                edits.append(_subtracting(place, off_rN))
        written = {place.hook for place, _ in marked}
        held = {
            name: acts
            for name, acts in local.held.held.items()
            if name.endswith(ends) and name not in written
        }
        tokens_rT = local.held.tokens.expand(len(piece_rM), -1)
        if held or condition.replaced:
            contexts = frozen.Frozen(tokens_rT, held)
            read = frozen.run(model, contexts, {}, [frozen.LOGITS], edits)
            pieces.append(read[frozen.LOGITS][:, -1])
        else:
            pieces.append(running.logits(model, tokens_rT, edits, last=True))
    return torch.cat(pieces)


def check(
    model: Any,
    local: Local,
    graph: Graph,
    ablated_RM: Tensor,
    conditions: Mapping[str, Condition] = COLUMNS,
) -> Check:
    """Predicted and measured effects on the logit nodes of setting marked feature nodes to 0: R
    ablations of their own, [R, M] bool.

    Raises UsageError if an error, a token or a logit is marked.

    >>> one_M = torch.arange(len(drawn.nodes.kind)) == 3
    >>> check(model, local, drawn, one_M[None]).measured["free"]
    """
    if others := int((ablated_RM & (graph.nodes.kind != FEATURE)).sum()):
        raise UsageError(
            f"{others} of the marked nodes are no features: only features can be ablated here"
        )
    logits_M = graph.nodes.kind == LOGIT
    outputs_K = graph.nodes.number[logits_M]
    with_none = torch.cat([torch.zeros_like(ablated_RM[:1]), ablated_RM])
    measured = {}
    for name, condition in conditions.items():
        logits_RV = logits(model, local, graph, with_none, condition)
        measured[name] = _changes(logits_RV)[:, outputs_K]
    return Check(predict(graph, ablated_RM)[:, logits_M], measured)


def _changes(logits_RV: Tensor) -> Tensor:
    """Each row's logits minus their mean, less the first row's."""
    centred_RV = logits_RV - logits_RV.mean(1, keepdim=True)
    return (centred_RV[1:] - centred_RV[0]).cpu()
