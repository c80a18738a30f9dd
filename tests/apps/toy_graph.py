"""A folder of one attribution graph with random links, as `saelab graph` writes it."""

import random
from pathlib import Path
from typing import Any

from saelab.files import write_json
from saelab.runs import RunFolder

LAYERS = 4
HOOK = "blocks.{}.mlp.hook_out"


def node(name: str, layer: str, at: int, kind: str, **own: Any) -> dict[str, Any]:
    fields = {"node_id": name, "feature": -1, "layer": layer, "ctx_idx": at, "feature_type": kind}
    rest = {"jsNodeId": name, "clerp": "", "influence": None, "activation": None, "token_prob": 0.0}
    return {**fields, **rest, **own}


def graph(n_features: int, n_links: int, n_tokens: int = 6) -> dict[str, Any]:
    """A document of kind `graph`: links lead from lower layers to higher ones."""
    draw = random.Random(0)
    tokens = [node(f"E_{at}_{at}", "E", at, "embedding", influence=1.0) for at in range(n_tokens)]
    features = []
    for number in range(n_features):
        layer, at = number % LAYERS, draw.randrange(1, n_tokens)
        own = {"activation": draw.random(), "influence": (number + 1) / n_features}
        own |= {"hook": HOOK.format(layer), "number": number}
        name = f"{layer}_{number}_{at}"
        features.append(node(name, str(layer), at, "cross layer transcoder", **own))
    output = {"clerp": 'Output " x" (p=0.900)', "token_prob": 0.9, "feature": 7}
    last = node(f"{LAYERS + 1}_7_{n_tokens - 1}", str(LAYERS + 1), n_tokens - 1, "logit", **output)
    ordered = [*tokens, *sorted(features, key=lambda one: int(one["layer"])), last]
    links = []
    for _ in range(n_links):
        low, high = sorted(draw.sample(range(len(ordered)), 2))
        ends = {"source": ordered[low]["node_id"], "target": ordered[high]["node_id"]}
        links.append({**ends, "weight": draw.gauss(0, 1)})
    return {
        "schema": "saelab/graph/1",
        "metadata": {
            "slug": "prompt-0",
            "scan": "toy",
            "transcoder_list": [],
            "prompt": "a <b> c d e",
            "prompt_tokens": [f" t{at}" for at in range(n_tokens)],
            "node_threshold": 0.8,
            "schema_version": 1,
        },
        "qParams": {
            "pinnedIds": [],
            "supernodes": [],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": ordered,
        "links": links,
        "scores": {
            "replacement": 0.6,
            "floor": 0.1,
            "completeness": 0.7,
            "circuit_tracer_completeness": 0.8,
        },
        "n_features": n_features,
        "n_nodes": len(ordered),
        "n_edges": n_links,
        "next_token": " x",
        "answered": True,
        "seconds": 1.0,
    }


def make(place: Path, n_features: int = 40, n_links: int = 200) -> RunFolder:
    """Write the folder of such a graph."""
    folder, document = RunFolder(place), graph(n_features, n_links)
    number = {"value": 0.5, "low": 0.4, "high": 0.6, "null": 0.1}
    column = {"correlation": number, "slope": number}
    row = {"slug": "prompt-0", "prompt": document["metadata"]["prompt"]}
    faithfulness = {"n_ablated": 3, "held": column, "free": column, "model": column}
    table = {"schema": "saelab/graphs/1", "prompts": [row], "notes": ["a note"], "runs": {}}
    write_json(folder.graph("prompt-0"), document)
    write_json(folder.graphs, {**table, "faithfulness": faithfulness})
    foreign = {name: document[name] for name in ("metadata", "qParams", "nodes", "links")}
    write_json(folder.path / "circuit-tracer" / "prompt-0.json", foreign)
    return folder
