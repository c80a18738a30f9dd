"""Does an attribution graph foretell what ablating its features does: predicted against measured
change.

Source: Ameisen et al. 2025 (perturbation experiments).
Shapes: T positions, D width, N pairs, M nodes, V vocabulary.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.circuits.graphs.graph import FEATURE, LOGIT, Graph, Local, Place
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import sddmm, spmm


class Check(NamedTuple):
    """Change of each logit node (minus the mean logit) when features are ablated, [K] each.

    predicted: from the graph's edges. held: measured with patterns, norms and the set of active
    features held. free: measured with everything recomputed, features included; errors stay as they
    were.
    """

    predicted: Tensor
    held: Tensor
    free: Tensor


def predict(graph: Graph, ablated_M: Tensor) -> Tensor:
    """[M]: how every feature's pre-activation and every logit changes when the marked features are
    set to 0.

    A feature passes its own change on, because its output is linear in its pre-activation while it
    stays active.
    """
    slopes = (
        graph.edges.double()
        / torch.where(graph.nodes.kind == FEATURE, graph.nodes.value, 1.0).double()
    )
    start = torch.where(ablated_M, -graph.nodes.value.double(), 0.0)
    total, change = torch.zeros_like(start), start
    while change.any():
        total, change = total + change, slopes @ change
        change = torch.where(ablated_M, 0.0, change)
    return total.float()


def _hooks(place: Place, off_N: Tensor, free: bool) -> list[tuple[str, Any]]:
    """Hooks that recompute a place's features from what it reads and write them with the stored
    error; off_N [N] are set to 0."""
    assert place.site
    sae, parts, seen = place.site.sae, place.parts, {}
    off_TF = torch.zeros(parts.code.n_tokens, sae.n_features, dtype=torch.bool)
    off_TF[parts.code.tokens[off_N], parts.code.features[off_N]] = True

    def remember(acts: Tensor) -> None:
        x_TD = acts[0].flatten(1)
        if free:
            seen["code"] = sae.encode(x_TD)
        else:
            centred_TD = x_TD if sae.transcoder else x_TD - sae.b_dec
            pre_N = sddmm(centred_TD, sae.W_enc, parts.code) + sae.b_enc[parts.code.features]
            seen["code"] = parts.code.with_values(pre_N)

    def write(acts: Tensor) -> Tensor:
        code: Code = seen["code"]
        off_N = off_TF[code.tokens, code.features] | (code.tokens == 0)
        decoded_TD = spmm(code.with_values(torch.where(off_N, 0, code.values)), sae.W_dec)
        return (decoded_TD + (parts.shift + parts.error)[0]).view(acts.shape)

    return [(place.site.read, remember), (place.site.write, write)]


@torch.no_grad()
def run(model: Any, local: Local, graph: Graph, ablated_M: Tensor, *, free: bool) -> Tensor:
    """Logits [V] at the last position of the local replacement model with the marked features set
    to 0; see Check for `free`."""
    hooks, held = [], dict(local.held.held)
    for number, place in enumerate(local.places):
        if place.site:
            mine = (graph.nodes.kind == FEATURE) & (graph.nodes.place == number)
            hooks += _hooks(place, ablated_M[mine], free)
            held.pop(place.hook, None)
    kept = {} if free else held
    return frozen.run(model, frozen.Frozen(local.held.tokens, kept), {}, [frozen.LOGITS], hooks)[
        frozen.LOGITS
    ][0, -1]


def check(model: Any, local: Local, graph: Graph, ablated_M: Tensor) -> Check:
    """Predicted and measured effect of setting the marked feature nodes [M] to 0 on the logit
    nodes.

    Raises UsageError if an error, a token or a logit is marked.
    """
    if others := int((ablated_M & (graph.nodes.kind != FEATURE)).sum()):
        raise UsageError(
            f"{others} of the marked nodes are no features: only features can be ablated here"
        )
    outputs_K, none_M = graph.nodes.number[graph.nodes.kind == LOGIT], torch.zeros_like(ablated_M)
    measured = []
    for free in (False, True):
        before_V, after_V = (
            run(model, local, graph, mask_M, free=free) for mask_M in (none_M, ablated_M)
        )
        measured.append(((after_V - after_V.mean()) - (before_V - before_V.mean()))[outputs_K])
    return Check(predict(graph, ablated_M)[graph.nodes.kind == LOGIT], *measured)
