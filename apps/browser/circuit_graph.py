"""A circuit as the canvas of graphs takes it. Nothing imports Streamlit."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from .addresses import in_the_app
from .draw import number
from .graph import WORDS, short

HEAD = re.compile(r"a(\d+)\.h(\d+)(?:\.([qkv]))?$")
MLP = re.compile(r"m(\d+)$")
HINT = "click a node for its edges; a head for what it attends to"


def heads(document: Mapping[str, Any], slug: str) -> dict[str, Any]:
    """The payload of a circuit of heads: layers upward, heads along, an edge for each input of a
    head (its query, key and value); sizes by score.

    >>> heads(document, "ioi")["rows"]
    ['embed', 'layer 0', 'layer 1', 'logits']
    """
    rows_ = document["heads"]
    n_layers, n_heads = (1 + max(row[name] for row in rows_) for name in ("layer", "head"))
    places = {"embed": (0, n_heads), "logits": (n_layers + 1, n_heads)}
    scores: dict[str, float | None] = dict.fromkeys(places)
    for row in rows_:
        name = f"a{row['layer']}.h{row['head']}"
        places[name], scores[name] = (1 + row["layer"], row["head"]), row["score"]
    for layer in range(n_layers):
        mlps = document.get("mlps")
        places[f"m{layer}"] = (1 + layer, n_heads)
        scores[f"m{layer}"] = mlps[layer] if mlps else None
    kinds = {"embed": "token", "logits": "logit"}
    nodes = []
    for name, (row, column) in places.items():
        kind = kinds.get(name) or ("mlp" if MLP.match(name) else "head")
        nodes.append(_node(name, kind, row, column, scores[name]))
    at = {name: index for index, name in enumerate(places)}
    links = []
    for edge in document["edges"]:
        target = HEAD.match(edge["target"])
        part = target[3] if target else None
        end = edge["target"].removesuffix(f".{part}") if part else edge["target"]
        if edge["source"] in at and end in at:
            links.append([at[edge["source"]], at[end], short(edge["score"]), *filter(None, [part])])
    names = [*(f"h{head}" for head in range(n_heads)), "MLP"]
    levels = ["embed", *(f"layer {layer}" for layer in range(n_layers)), "logits"]
    return _payload(document, slug, nodes, links, levels, names, "head")


def features(document: Mapping[str, Any], slug: str, runs: Mapping[str, str]) -> dict[str, Any]:
    """The payload of a circuit of features: hook points upward, features beside errors; sizes by
    effect. runs: folder of a run -> its name here."""
    hooks, at, nodes = document["hooks"], {}, []
    for row in document["nodes"]:
        at[row["name"]] = len(nodes)
        place = hooks.index(row["hook"])
        is_error = row["feature"] is None
        node = _node(
            row["name"], "error" if is_error else "feature", place, is_error, row["effect"]
        )
        run = runs.get(document["runs"].get(row["hook"], ""))
        if run and not is_error:
            node["page"] = in_the_app("feature", {"run": run, "feature": row["feature"]})
        nodes.append(node)
    at["metric"] = len(nodes)
    nodes.append(_node("metric", "logit", len(hooks), 0, None))
    links = [
        [at[edge["source"]], at[edge["target"]], short(edge["score"])]
        for edge in document["edges"]
        if edge["source"] in at and edge["target"] in at
    ]
    levels = [hook.removeprefix("blocks.") for hook in hooks]
    return _payload(document, slug, nodes, links, [*levels, "metric"], ["features", "errors"], "")


def _node(name: str, kind: str, row: int, at: int, score: float | None) -> dict[str, Any]:
    told = None if score is None else number(score)
    place = {"id": name, "kind": kind, "row": row, "at": int(at)}
    return {**place, "share": 0.0, "own": score, "value": told, "text": name, "page": ""}


def _payload(
    document: Mapping[str, Any],
    slug: str,
    nodes: list[dict[str, Any]],
    links: Sequence[list],
    rows: list[str],
    columns: list[str],
    column: str,
) -> dict[str, Any]:
    total = sum(abs(node["own"] or 0.0) for node in nodes) or 1.0
    before = 0.0
    for node in sorted(nodes, key=lambda node: -abs(node["own"] or 0.0)):
        if node["own"] is not None:
            node["own"] = abs(node["own"]) / total
            before += node["own"]
            node["share"], node["own"] = round(min(1.0, before), 4), round(node["own"], 6)
    return {
        **WORDS,
        "slug": slug,
        "label": f"circuit of {document['task']} by {document['method']}, {len(nodes)} nodes",
        "rows": rows,
        "columns": columns,
        "columnName": column,
        "valueName": "effect" if column == "" else "score",
        "size": 14,
        "editable": False,
        "hint": HINT if column else "click a node for its edges",
        "nodes": nodes,
        "others": [],
        "attended": {},
        "links": links,
        "share": 1.0,
        "pinned": [],
        "groups": [],
        "names": {},
    }


def head_of(name: str) -> tuple[int, int] | None:
    """(layer, head) of a head's name, None for other nodes.

    >>> head_of("a2.h11")
    (2, 11)
    """
    found = HEAD.match(name)
    return (int(found[1]), int(found[2])) if found and not found[3] else None
