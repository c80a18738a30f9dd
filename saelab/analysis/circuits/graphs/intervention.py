"""Does an attribution graph foretell what ablating its features does: predicted against measured
change.

Source: Ameisen et al. 2025 (perturbation experiments).
Shapes: R ablations, T positions, B = R x T tokens, D width, N pairs, M nodes, K logit nodes,
V vocabulary.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.circuits.graphs.apart import Local, Place
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, Graph
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


class _Replacing:
    """Edits that recompute the features of all places from what they read and write them with the
    stored errors. moving: which of them are active is found anew."""

    def __init__(self, marked: Sequence[tuple[Place, Tensor]], moving: bool) -> None:
        self._marked, self._moving = marked, moving
        self._inputs: dict[str, Tensor] = {}  # [R, T, D] by the hook that a place explains
        self._written: dict[str, Tensor] = {}  # [R T, E] by the hook written to, so far

    def edits(self) -> list[tuple[str, Edit]]:
        """In no matter which order of places: a hook's writers have read before it fires."""
        pairs: list[tuple[str, Edit]] = []
        for place, off_RN in self._marked:
            assert place.site
            pairs.append((place.site.read, partial(self._read, place, off_RN)))
            pairs.append((place.site.write, partial(self._write, place)))
        return pairs

    def _read(self, place: Place, off_RN: Tensor, acts: Tensor) -> None:
        assert place.site
        self._inputs[place.hook] = acts.flatten(2)
        code = self._code(place, off_RN, acts.flatten(2).flatten(0, 1))
        for hook, W_FE in place.site.decoders().items():
            before = self._written.get(hook)
            written_BE = spmm(code, W_FE)
            self._written[hook] = written_BE if before is None else before + written_BE

    def _code(self, place: Place, off_RN: Tensor, x_BD: Tensor) -> Code:
        """What the place's features are of these inputs, those of off_RN [R, N] set to 0."""
        assert place.site
        sae, length = place.site.sae, place.parts.code.n_tokens
        every = Code.concatenate([place.parts.code] * len(off_RN))
        if self._moving:
            code = sae.encode(x_BD)
        else:
            centred_BD = x_BD if sae.transcoder else x_BD - sae.b_dec
            pre_N = sddmm(centred_BD, sae.W_enc, every) + sae.b_enc[every.features]
            code = every.with_values(pre_N)

        def key(code: Code) -> Tensor:
            """A number for each pair that no other pair of the R contexts has."""
            return code.tokens * sae.n_features + code.features

        off_N = torch.isin(key(code), key(every)[off_RN.flatten()]) | (code.tokens % length == 0)
        return code.with_values(torch.where(off_N, 0, code.values))

    def _write(self, place: Place, acts: Tensor) -> Tensor:
        assert place.site
        x_RTD = self._inputs[place.hook]
        written_RTD = self._written.pop(place.hook).view(*x_RTD.shape[:2], -1)
        written_RTD = written_RTD + (place.parts.shift + place.parts.error)[0]
        for way in place.site.passing().values():
            written_RTD = written_RTD + way.of(x_RTD)
        return written_RTD.view(acts.shape)


def _subtracting(place: Place, off_RN: Tensor) -> list[tuple[str, Edit]]:
    """Edits that take what the marked features write out of the model's own activations."""
    assert place.site
    code = place.parts.code
    rows_n, pairs_n = off_RN.nonzero(as_tuple=True)
    at = rows_n, code.tokens[pairs_n]

    def subtract(W_FE: Tensor, acts: Tensor) -> Tensor:
        written_nE = code.values[pairs_n, None] * W_FE[code.features[pairs_n]]
        changed_RTE = acts.flatten(2).index_put(at, -written_nE, accumulate=True)
        return changed_RTE.view(acts.shape)

    decoders = place.site.decoders()
    return [(hook, partial(subtract, W_FE)) for hook, W_FE in decoders.items()]


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
        if condition.replaced:
            edits = _Replacing(marked, "features" in condition.moving).edits()
        else:
            edits = [edit for place, off_rN in marked for edit in _subtracting(place, off_rN)]
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
