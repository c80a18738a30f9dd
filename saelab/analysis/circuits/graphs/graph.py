"""Attribution graphs: which features, errors and tokens make a prompt's features and output logits
what they are.

Attention patterns and norms are held, MLPs replaced by transcoders (any dictionary may stand at any
hook) plus their error, so that every pre-activation and logit is an exact sum over its inputs.
Source: Ameisen et al. 2025, "Circuit Tracing". Shapes: T positions, D width, V vocabulary, N pairs,
R rows, M nodes.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.analysis import frozen
from saelab.analysis.attention.attribution import bias
from saelab.analysis.circuits.graphs.apart import Local
from saelab.code import Code

FEATURE, ERROR, TOKEN, LOGIT = range(4)
ROWS = 256  # targets traced in one pass
LOGITS, COVERED = 10, 0.95  # output nodes: at most so many, at most so much of the probability


class Nodes(NamedTuple):
    """Graph nodes [M]: all features, then errors, then tokens, then logits; on the CPU.

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


def _outputs(logits_V: Tensor, also: Sequence[int]) -> Tensor:
    """The token ids that cover the wanted share of the probability, most probable first, then
    those asked for."""
    top = logits_V.softmax(0).topk(min(LOGITS, len(logits_V)))
    before_K = top.values.cumsum(0) - top.values
    probable = top.indices[before_K < COVERED].tolist()
    return torch.tensor(list(dict.fromkeys([*probable, *also])))


def _nodes(local: Local, also: Sequence[int]) -> Nodes:
    tokens_T, outputs_K = local.held.tokens[0].cpu(), _outputs(local.logits, also)
    probability_V = local.logits.softmax(0).cpu()
    length, end = len(tokens_T), torch.full_like(outputs_K, len(tokens_T) - 1)
    at_T, ones_T = torch.arange(length), torch.ones(length)
    columns = []
    for number, place in enumerate(local.places):
        code = place.parts.code.to("cpu")
        columns.append(
            (FEATURE, torch.full_like(code.tokens, number), code.tokens, code.features, code.values)
        )
    for number in range(len(local.places)):
        columns.append(
            (ERROR, torch.full_like(at_T, number), at_T, torch.full_like(at_T, -1), ones_T)
        )
    columns.append((TOKEN, torch.full_like(at_T, -1), at_T, tokens_T, ones_T))
    columns.append((LOGIT, torch.full_like(end, -1), end, outputs_K, probability_V[outputs_K]))
    kinds = torch.cat([torch.full_like(place, kind) for kind, place, *_ in columns])
    return Nodes(kinds, *(torch.cat([column[i] for column in columns]) for i in range(1, 5)))


def _sources(local: Local, rows: frozen.Rows) -> Tensor:
    """[R, M - K]: what every feature, error and token adds to functionals."""
    n_rows, length = len(rows.constants), len(local.embedding)
    features, errors = [], []
    for place in local.places:
        code = place.parts.code
        brought_RN = rows.constants.new_zeros(n_rows, len(code.values))
        for hook, W_FE in place.site.decoders().items() if place.site else ():
            if hook in rows.gradients:
                brought_RN += _along_decoder(rows.gradients[hook], W_FE, code)
        features.append(brought_RN)
        gradient_RTD = rows.gradients.get(place.hook)
        if gradient_RTD is None:
            errors.append(rows.constants.new_zeros(n_rows, length))
        else:
            errors.append(torch.einsum("rtd,td->rt", gradient_RTD, place.parts.error[0]))
    tokens_RT = rows.constants.new_zeros(n_rows, length)
    if frozen.EMBEDDING in rows.gradients:
        gradient_RTD = rows.gradients[frozen.EMBEDDING]
        tokens_RT = torch.einsum("rtd,td->rt", gradient_RTD, local.embedding)
    return torch.cat([*features, *errors, tokens_RT], 1)


def _along_decoder(gradient_RTD: Tensor, W_FD: Tensor, code: Code) -> Tensor:
    """[R, N]: each gradient along what each pair writes at its position."""
    starts = code.starts.tolist()
    written = [gradient_RTD.new_zeros(len(gradient_RTD), 0)]
    for position in range(code.n_tokens):
        mine = slice(starts[position], starts[position + 1])
        W_nD = W_FD[code.features[mine]] * code.values[mine, None]
        written.append(gradient_RTD[:, position] @ W_nD.T)
    return torch.cat(written, 1)


def inputs(
    model: Any, local: Local, read: str, positions_R: Tensor, W_RD: Tensor
) -> tuple[Tensor, Tensor]:
    """(edges [R, M - K], biases [R]) into functionals of the activation at `read`, ROWS at a
    time, which bounds their gradients."""
    given = {place.hook: (place.parts.shift + place.parts.error)[0] for place in local.places} | {
        frozen.EMBEDDING: local.embedding
    }
    sites = [place.site for place in local.places if place.site]
    passing = {hook: way for site in sites for hook, way in site.passing().items()}
    reading = frozen.reading(model, local.held, given, read, passing)
    positions_R = positions_R.to(W_RD.device)
    edges, biases = [], []
    for positions_r, W_rD in zip(positions_R.split(ROWS), W_RD.split(ROWS), strict=True):
        piece_rows = reading.rows(positions_r, W_rD)
        edges.append(_sources(local, piece_rows).cpu())
        biases.append(piece_rows.constants.clone())
        for place in local.places:
            if place.hook in piece_rows.gradients:
                gradient_rTD = piece_rows.gradients[place.hook]
                biases[-1] += torch.einsum("rtd,td->r", gradient_rTD, place.parts.shift[0])
    return torch.cat(edges), torch.cat(biases).cpu()


def graph(model: Any, local: Local, also: Sequence[int] = ()) -> Graph:
    """The attribution graph of a prompt (see `take_apart`). also: token ids that are logit nodes
    whatever their probability.

    >>> local = take_apart(model, tokens_T, transcoders)
    >>> drawn = graph(model, local)
    """
    nodes = _nodes(local, also)
    n_nodes, n_outputs = len(nodes.kind), int((nodes.kind == LOGIT).sum())
    dtype = local.logits.dtype
    edges = torch.zeros(n_nodes, n_nodes, dtype=dtype)
    biases = torch.zeros(n_nodes, dtype=dtype)
    totals = torch.full((n_nodes,), torch.nan, dtype=dtype)
    for number, place in enumerate(local.places):
        mine = ((nodes.kind == FEATURE) & (nodes.place == number)).nonzero().flatten()
        if place.site and len(mine):
            sae, features_R = place.site.sae, nodes.number[mine].to(local.logits.device)
            W_RD = sae.W_enc.detach()[features_R]
            edges[mine, :-n_outputs], constants_R = inputs(
                model, local, place.site.read, nodes.position[mine], W_RD
            )
            biases[mine] = constants_R + bias(sae, features_R).cpu()
            totals[mine] = nodes.value[mine]
    outputs_K = nodes.number[-n_outputs:]
    W_KV = torch.nn.functional.one_hot(outputs_K, len(local.logits)) - 1 / len(local.logits)
    W_KV = W_KV.to(local.logits)
    edges[-n_outputs:, :-n_outputs], biases[-n_outputs:] = inputs(
        model, local, frozen.LOGITS, nodes.position[-n_outputs:], W_KV
    )
    totals[-n_outputs:] = (local.logits - local.logits.mean()).cpu()[outputs_K]
    return Graph(nodes, edges, biases, totals, [place.hook for place in local.places])
