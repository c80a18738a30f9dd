"""Why heads attend, in a graph's document: in Neuronpedia's fields, with ours beside them.

Source: hijohnnylin/neuronpedia, its graph types (`qk_tracing_results` of a node, the document's
`qk_only_nodes`). Shapes: M nodes that are no outputs.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from saelab.analysis.circuits.graphs import influence
from saelab.analysis.circuits.graphs.apart import Local
from saelab.analysis.circuits.graphs.attending import (
    PAIRS,
    Edge,
    Split,
    Splitter,
    edges,
    leading,
)
from saelab.analysis.circuits.graphs.document import Words, names, node_fields
from saelab.analysis.circuits.graphs.graph import Graph
from saelab.analysis.circuits.graphs.influence import Core


def attend(
    model: Any, local: Local, drawn: Graph, core: Core, words: Words, fields: dict[str, Any], n: int
) -> dict[str, Any]:
    """The document with `qk_tracing_results` of the n kept nodes of most influence, and with the
    nodes that these name and pruning dropped. Raises UsageError where scores are no plain product
    of query and key.

    >>> attend(model, local, drawn, core, words, document(drawn, core, words, 0.8), 20)
    """
    ids, splitter = names(drawn, words.n_layers), Splitter(model, local)
    results, named = {}, set()
    for target, listed in edges(model, local, drawn, leading(drawn, core.nodes, n)).items():
        split = splitter.split(listed[0].at)
        results[ids[target]] = _results(split, listed, ids.__getitem__)
        named |= _named(split)
    nodes = [
        {**node, "qk_tracing_results": results[node["node_id"]]}
        if node["node_id"] in results
        else node
        for node in fields["nodes"]
    ]
    there = {node["node_id"] for node in nodes}
    reach_M = influence.influence(influence.shares(drawn.edges), influence.output_weights(drawn))
    shares = influence.cumulative(reach_M)
    only = {
        ids[node]: node_fields(drawn, node, ids[node], float(shares[node]), words)
        for node in sorted(named)
        if ids[node] not in there
    }
    return {**fields, "nodes": nodes, "qk_only_nodes": only}


def _results(split: Split, listed: list[Edge], name: Callable[[int], str]) -> dict[str, Any]:
    """Theirs: the three lists. Ours: which edge it is, its score, what no pair of nodes explains of
    it, and the node's other edges."""
    return {
        "pair_wise_contributors": [[name(q), name(k), part] for q, k, part in split.pairs(PAIRS)],
        "top_q_marginal_contributors": [
            [name(node), part] for node, part in _top(split.marginals(query=True))
        ],
        "top_k_marginal_contributors": [
            [name(node), part] for node, part in _top(split.marginals(query=False))
        ],
        "score": split.score,
        "rest": split.rest(),
        "edges": [
            {**edge.at._asdict(), "pattern": edge.pattern, "weight": edge.weight} for edge in listed
        ],
    }


def _top(marginals_M: Tensor) -> list[tuple[int, float]]:
    of_nodes = marginals_M[:-1]
    order = of_nodes.abs().argsort(descending=True)[:PAIRS].tolist()
    return [(node, float(of_nodes[node])) for node in order if of_nodes[node] != 0]


def _named(split: Split) -> set[int]:
    ends = {end for pair in split.pairs(PAIRS) for end in pair[:2]}
    tops = (_top(split.marginals(query)) for query in (True, False))
    return ends | {node for top in tops for node, _ in top}
