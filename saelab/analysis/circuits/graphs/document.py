"""An attribution graph as JSON: circuit-tracer's schema, which Neuronpedia reads too, with nodes
named by our own rule where that schema has no place for them.

Source: circuit-tracer 0.5.0 (frontend/graph_models.py), schema version 1.
"""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from saelab.analysis.circuits.graphs import influence
from saelab.analysis.circuits.graphs.apart import MLP_OUT
from saelab.analysis.circuits.graphs.graph import ERROR, FEATURE, LOGIT, TOKEN, Graph
from saelab.analysis.circuits.graphs.influence import Core
from saelab.errors import UsageError

LAYER = re.compile(r"blocks\.(\d+)\.")
# The fields of their schema; of the last, Neuronpedia's own, there may be none.
THEIRS = ("metadata", "qParams", "nodes", "links", "qk_only_nodes")


class Words(NamedTuple):
    """What the graph's numbers are called."""

    slug: str
    """the name of the graph, and of its file"""
    scan: str
    """which set of dictionaries the features are of"""
    prompt: str
    """as it was given"""
    tokens: list[str]
    """the prompt's, as they read"""
    outputs: list[str]
    """the tokens of the logit nodes, as they read"""
    n_layers: int
    """of the model"""


def document(
    graph: Graph, core: Core, words: Words, node_share: float, groups: Sequence[list[int]] = ()
) -> dict[str, Any]:
    """metadata, qParams, nodes and links of what pruning keeps. groups: nodes that are supernodes
    together.

    A link's weight is what its source adds to its target; a node's `influence` is the share of all
    influence that it has together with those of more, as in circuit-tracer. Weights and activations
    are in the model's units.

    >>> document(drawn, influence.prune(drawn), words, influence.NODE_SHARE)["nodes"][0]["node_id"]
    """
    ids = names(graph, words.n_layers)
    reach_M = influence.influence(influence.shares(graph.edges), influence.output_weights(graph))
    shares = influence.cumulative(reach_M).tolist()
    linked_M = core.edges.any(0) | core.edges.any(1)
    fixed_M = (graph.nodes.kind == TOKEN) | (graph.nodes.kind == LOGIT)
    kept = (core.nodes & (linked_M | fixed_M)).nonzero().flatten().tolist()
    targets, sources = (column.tolist() for column in core.edges.nonzero(as_tuple=True))
    weights = graph.edges[core.edges].tolist()
    return {
        "metadata": _metadata(words, node_share),
        "qParams": {
            "pinnedIds": [],
            "supernodes": [
                [_label(graph, nodes, shares, words), *(ids[node] for node in nodes)]
                for nodes in groups
            ],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": [node_fields(graph, node, ids[node], shares[node], words) for node in kept],
        "links": [
            {"source": ids[source], "target": ids[target], "weight": weight}
            for source, target, weight in zip(sources, targets, weights, strict=True)
        ],
    }


def theirs(fields: dict[str, Any], places: Sequence[str]) -> dict[str, Any]:
    """The fields of their schema alone. Raises UsageError for a graph that it cannot hold: it knows
    one dictionary a layer, of the MLP's output.

    >>> theirs(document(...), drawn.places)
    """
    if odd := [hook for hook in places if not hook.endswith(MLP_OUT)]:
        raise UsageError(
            f"circuit-tracer's schema knows transcoders of MLPs alone, and this graph has features "
            f"at {', '.join(odd)}: it is written in our own form only"
        )
    return {name: fields[name] for name in THEIRS if name in fields}


def layer_of(hook: str) -> int:
    """The layer a hook point is in."""
    match = LAYER.match(hook)
    return int(match[1]) if match else 0


def _metadata(words: Words, node_share: float) -> dict[str, Any]:
    return {
        "slug": words.slug,
        "scan": words.scan,
        "transcoder_list": [],
        "prompt_tokens": words.tokens,
        "prompt": words.prompt,
        "node_threshold": node_share,
        "schema_version": 1,
    }


def _prefixes(places: Sequence[str]) -> list[str]:
    """What the ids of each place's nodes begin with: its layer where it is an MLP's output, else
    its hook."""
    prefixes = []
    for hook in places:
        at_mlp = hook.endswith(MLP_OUT)
        prefixes.append(str(layer_of(hook)) if at_mlp else hook.removeprefix("blocks."))
    return prefixes


def names(graph: Graph, n_layers: int) -> list[str]:
    """A name for each node, all different."""
    nodes, prefixes = graph.nodes, _prefixes(graph.places)
    columns = (nodes.kind, nodes.place, nodes.position, nodes.number)
    ids = []
    for kind, place, position, number in zip(*(c.tolist() for c in columns), strict=True):
        if kind == FEATURE:
            ids.append(f"{prefixes[place]}_{number}_{position}")
        elif kind == ERROR:
            ids.append(f"0_{prefixes[place]}_{position}")
        elif kind == TOKEN:
            ids.append(f"E_{number}_{position}")
        else:
            ids.append(f"{n_layers + 1}_{number}_{position}")
    counts = Counter(ids)
    # Theirs calls the error of layer 3 what a feature 3 of layer 0 is called.
    kinds = nodes.kind.tolist()
    return [
        f"{name}_error" if kind == ERROR and counts[name] > 1 else name
        for name, kind in zip(ids, kinds, strict=True)
    ]


def _label(graph: Graph, group: list[int], shares: list[float], words: Words) -> str:
    """The token that a supernode is at, and its feature of most influence."""
    nodes, first = graph.nodes, min(group, key=shares.__getitem__)
    layer = layer_of(graph.places[int(nodes.place[first])])
    token = words.tokens[int(nodes.position[first])]
    return f"{token!r}: {layer}/{int(nodes.number[first])} and {len(group) - 1} more"


def _cantor(x: int, y: int) -> int:
    """One number for two, by which their page looks up a feature."""
    return (x + y) * (x + y + 1) // 2 + y


def node_fields(graph: Graph, node: int, name: str, share: float, words: Words) -> dict[str, Any]:
    """A node as the schema has it."""
    nodes = graph.nodes
    kind, place = int(nodes.kind[node]), int(nodes.place[node])
    position, number = int(nodes.position[node]), int(nodes.number[node])
    value = float(nodes.value[node])
    layer = layer_of(graph.places[place]) if place >= 0 else words.n_layers + 1
    own: dict[str, Any]
    if kind == FEATURE:
        own = {
            "feature": _cantor(layer, number),
            "layer": str(layer),
            "feature_type": "cross layer transcoder",
            "jsNodeId": f"{layer}_{number}-0",
            "activation": value,
        }
    elif kind == ERROR:
        own = {
            "feature": -1,
            "layer": str(layer),
            "feature_type": "mlp reconstruction error",
            "jsNodeId": f"{layer}_{position}-0",
        }
    elif kind == TOKEN:
        own = {
            "feature": position,
            "layer": "E",
            "feature_type": "embedding",
            "jsNodeId": f"E_{number}-{position}",
        }
    else:
        first = int((nodes.kind == LOGIT).nonzero()[0])
        text = words.outputs[node - first]
        own = {
            "feature": number,
            "layer": str(layer),
            "feature_type": "logit",
            "jsNodeId": f"L_{number}-{position}",
            "token_prob": value,
            "is_target_logit": node == first,
            "clerp": f'Output "{text}" (p={value:.3f})',
        }
    common = {
        "node_id": name,
        "ctx_idx": position,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "clerp": "",
        "influence": None if kind == LOGIT else share,
        "activation": None,
    }
    place_of = {"hook": graph.places[place], "number": number} if kind == FEATURE else {}
    return {**common, **own, **place_of}
