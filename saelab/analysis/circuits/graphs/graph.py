"""Attribution graphs: which features, errors and tokens make a prompt's features and output logits
what they are.

Attention patterns and norms are held, MLPs replaced by transcoders (any dictionary may stand at any
hook) plus their error, so that every pre-activation and logit is an exact sum over its inputs.
Source: Ameisen et al. 2025, "Circuit Tracing". Shapes: T positions, D width, V vocabulary, N pairs,
R rows, M nodes.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.attention.attribution import bias
from saelab.analysis.parts import Parts, Site, sites, split
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import spmm
from saelab.sae import SAE

FEATURE, ERROR, TOKEN, LOGIT = range(4)
FEATURES = 7500  # in a graph, at most
ROWS = 64  # targets traced in one pass
LOGITS, COVERED = 10, 0.95  # output nodes: at most so many, at most so much of the probability


class Nodes(NamedTuple):
    """Graph nodes [M]: all features, then errors, then tokens, then logits.

    kind: FEATURE, ERROR, TOKEN or LOGIT. place: which entry of `places` (-1: none). position.
    number: feature, or token id of the prompt or logit (-1 for errors). value: activation, 1 for
    errors and tokens, probability of a logit.
    """

    kind: Tensor
    place: Tensor
    position: Tensor
    number: Tensor
    value: Tensor


class Graph(NamedTuple):
    """edges [M, M]: what node [column] adds to node [row]: to a feature's pre-activation, to a
    logit minus the mean logit.

    biases [M]: what no node adds. totals [M]: the pre-activations and centred logits themselves,
    read from the model's run; for features and logits edges.sum(1) + biases = totals. places: the
    hooks that features and errors are at.
    """

    nodes: Nodes
    edges: Tensor
    biases: Tensor
    totals: Tensor
    places: list[str]


class Place(NamedTuple):
    """One hook whose activation is taken apart. site: the dictionary there, None for an MLP without
    one (all error)."""

    hook: str
    site: Site | None
    parts: Parts


class Local(NamedTuple):
    """One prompt taken apart: what a graph is drawn from. embedding [T, D]; logits [V]: the model's
    at the last position."""

    held: frozen.Frozen
    places: list[Place]
    embedding: Tensor
    logits: Tensor


@torch.no_grad()
def take_apart(model: Any, tokens_T: Tensor, saes: list[SAE], most: int = FEATURES) -> Local:
    """Run one prompt and split it at every place: those of the SAEs, and every MLP that none of
    them explains.

    Beyond `most` features the weakest count to the errors. Raises UsageError as `sites` does, and
    for an SAE of the embedding, whose features have no inputs.
    """
    standing = sites(model, saes)
    if any(site.write == frozen.EMBEDDING for site in standing):
        raise UsageError(
            f"an SAE at {frozen.EMBEDDING} has no inputs to trace: name SAEs of later hooks"
        )
    held = frozen.freeze(model, tokens_T[None])
    names = [
        frozen.EMBEDDING,
        frozen.LOGITS,
        *(name for site in standing for name in (site.read, site.write)),
    ]
    acts = frozen.run(model, held, {}, names)
    parts = [split(site.sae, acts[site.read], acts[site.write]) for site in standing]
    values_N = torch.cat([one.code.values.abs() for one in parts]) if parts else torch.zeros(0)
    least = values_N.topk(most).values[-1] if len(values_N) > most else 0.0
    places = [_place(site, one, float(least)) for site, one in zip(standing, parts, strict=True)]
    bare = [name for name in held.held if name.endswith("mlp.hook_out") and name not in acts]
    empty = Code(torch.zeros(len(tokens_T) + 1, dtype=torch.int64), tokens_T[:0], torch.zeros(0), 0)
    places += [
        Place(name, None, Parts(empty, torch.zeros_like(held.held[name]), held.held[name]))
        for name in bare
    ]
    return Local(held, places, acts[frozen.EMBEDDING][0], acts[frozen.LOGITS][0, -1])


def _place(site: Site, parts: Parts, least: float) -> Place:
    """The place with its features of |value| >= least; the others' part of the activation joins the
    error."""
    strong_N = parts.code.values.abs() >= least
    rest = parts.code.where(~strong_N)
    error_CTD = parts.error + spmm(rest, site.sae.W_dec.detach()).view_as(parts.error)
    return Place(site.write, site, Parts(parts.code.where(strong_N), parts.shift, error_CTD))


def _outputs(logits_V: Tensor) -> Tensor:
    """The token ids that cover the wanted share of the probability, most probable first."""
    top = logits_V.softmax(0).topk(min(LOGITS, len(logits_V)))
    before_K = top.values.cumsum(0) - top.values
    return top.indices[before_K < COVERED]


def _nodes(local: Local) -> Nodes:
    tokens_T, outputs_K = local.held.tokens[0], _outputs(local.logits)
    length, end = len(tokens_T), torch.full_like(outputs_K, len(tokens_T) - 1)
    at_T, ones_T = torch.arange(length), torch.ones(length)
    columns = []
    for number, place in enumerate(local.places):
        code = place.parts.code
        columns.append(
            (FEATURE, torch.full_like(code.tokens, number), code.tokens, code.features, code.values)
        )
    for number in range(len(local.places)):
        columns.append(
            (ERROR, torch.full_like(at_T, number), at_T, torch.full_like(at_T, -1), ones_T)
        )
    columns.append((TOKEN, torch.full_like(at_T, -1), at_T, tokens_T, ones_T))
    columns.append(
        (LOGIT, torch.full_like(end, -1), end, outputs_K, local.logits.softmax(0)[outputs_K])
    )
    kinds = torch.cat([torch.full_like(place, kind) for kind, place, *_ in columns])
    return Nodes(kinds, *(torch.cat([column[i] for column in columns]) for i in range(1, 5)))


def _sources(local: Local, gradients: dict[str, Tensor]) -> Tensor:
    """[R, M - K]: what every feature, error and token adds, from the gradients [R, T, D] at the
    places."""
    features, errors = [], []
    for place in local.places:
        gradient_RTD, code = gradients[place.hook], place.parts.code
        if place.site:
            W_ND = place.site.sae.W_dec.detach()[code.features] * code.values[:, None]
            features.append(torch.einsum("rnd,nd->rn", gradient_RTD[:, code.tokens], W_ND))
        errors.append((gradient_RTD * place.parts.error).sum(2))
    return torch.cat(
        [*features, *errors, (gradients[frozen.EMBEDDING] * local.embedding).sum(2)], 1
    )


def _inputs(
    model: Any, local: Local, read: str, positions_R: Tensor, W_RD: Tensor
) -> tuple[Tensor, Tensor]:
    """(edges [R, M - K], biases [R]) into functionals of the activation at `read`, ROWS at a
    time."""
    given = {place.hook: (place.parts.shift + place.parts.error)[0] for place in local.places} | {
        frozen.EMBEDDING: local.embedding
    }
    edges, biases = [], []
    for positions_r, W_rD in zip(positions_R.split(ROWS), W_RD.split(ROWS), strict=True):
        piece_rows = frozen.rows(model, local.held, given, read, positions_r, W_rD)
        edges.append(_sources(local, piece_rows.gradients))
        shifts = [
            (piece_rows.gradients[place.hook] * place.parts.shift).sum((1, 2))
            for place in local.places
        ]
        biases.append(piece_rows.constants + sum(shifts))
    return torch.cat(edges), torch.cat(biases)


def graph(model: Any, local: Local) -> Graph:
    """The attribution graph of a prompt (see `take_apart`)."""
    nodes = _nodes(local)
    n_nodes, n_outputs = len(nodes.kind), int((nodes.kind == LOGIT).sum())
    edges, biases, totals = (
        torch.zeros(n_nodes, n_nodes),
        torch.zeros(n_nodes),
        torch.full((n_nodes,), torch.nan),
    )
    for number, place in enumerate(local.places):
        mine = ((nodes.kind == FEATURE) & (nodes.place == number)).nonzero().flatten()
        if place.site and len(mine):
            sae, features_R = place.site.sae, nodes.number[mine]
            W_RD = sae.W_enc.detach()[features_R]
            edges[mine, :-n_outputs], constants_R = _inputs(
                model, local, place.site.read, nodes.position[mine], W_RD
            )
            biases[mine], totals[mine] = constants_R + bias(sae, features_R), nodes.value[mine]
    outputs_K = nodes.number[-n_outputs:]
    W_KV = torch.nn.functional.one_hot(outputs_K, len(local.logits)) - 1 / len(local.logits)
    edges[-n_outputs:, :-n_outputs], biases[-n_outputs:] = _inputs(
        model, local, frozen.LOGITS, nodes.position[-n_outputs:], W_KV
    )
    totals[-n_outputs:] = local.logits[outputs_K] - local.logits.mean()
    return Graph(nodes, edges, biases, totals, [place.hook for place in local.places])
