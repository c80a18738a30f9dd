"""An attribution graph as the canvas takes it, and what stands beside it as HTML. Nothing imports
Streamlit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .addresses import in_the_app
from .draw import estimate, grid, head, number, row, stats, text, title
from .html import EMPTY, Markup, html

DIGITS = 3  # of weights, which are drawn
WORDS = {
    "columnName": "position",
    "valueName": "value",
    "size": 5,
    "editable": True,
    "hint": "",
}  # what the canvas calls things; size: px that all of the influence adds to a node's radius
KINDS = {
    "cross layer transcoder": "feature",
    "mlp reconstruction error": "error",
    "embedding": "token",
    "logit": "logit",
}
COLUMNS = {
    "held": ("as attribution assumes", "patterns, norms and the set of active features held"),
    "free": ("free replacement", "everything recomputed, dictionaries in place, errors kept"),
    "model": ("the model itself", "what the feature writes is subtracted, all else recomputed"),
    "patterns": ("attention moves", "as attribution assumes, but patterns recomputed"),
    "norms": ("norms move", "as attribution assumes, but norms recomputed"),
    "features": ("features switch", "as attribution assumes, but which are active is found anew"),
    "mlps": ("its own MLPs", "patterns and norms held, MLPs as they compute"),
    "no patterns": ("the model, attention held", "subtracted in the model, with patterns held"),
}
Labels = Callable[[str, int], str]


def payload(
    document: Mapping[str, Any], runs: Mapping[str, str], labels: Labels, largest: int
) -> dict[str, Any]:
    """What the canvas draws. runs: hook -> name of the run whose features are at it; labels: what a
    hook's feature is called; largest: nodes at most, those of most influence first."""
    metadata = document["metadata"]
    chosen = _leading(document["nodes"], largest)
    at = {node["node_id"]: index for index, node in enumerate(chosen)}
    rows = _rows(chosen)
    keys = [key for key, _ in rows]
    others = [
        _other(node, keys, metadata, labels) for node in document.get("qk_only_nodes", {}).values()
    ]
    ends = at | {name: len(at) + n for n, name in enumerate(document.get("qk_only_nodes", {}))}
    links = [
        [at[link["source"]], at[link["target"]], short(link["weight"])]
        for link in document["links"]
        if link["source"] in at and link["target"] in at
    ]
    kept = document["qParams"]
    return {
        "slug": metadata["slug"],
        "label": f"attribution graph of {metadata['prompt']!r}, {len(chosen)} nodes",
        "rows": [name for _, name in rows],
        "columns": metadata["prompt_tokens"],
        **WORDS,
        "nodes": _nodes(chosen, keys, metadata, runs, labels),
        "others": others,
        "attended": {
            at[node["node_id"]]: _attended(node["qk_tracing_results"], ends)
            for node in chosen
            if "qk_tracing_results" in node
        },
        "links": links,
        "share": 1.0,
        "pinned": kept["pinnedIds"],
        "groups": kept["supernodes"],
        "names": {node["node_id"]: node["clerp"] for node in chosen if _is_named(node)},
    }


def _is_named(node: Mapping[str, Any]) -> bool:
    return bool(node["clerp"]) and node["feature_type"] != "logit"


def _leading(nodes: Sequence[dict[str, Any]], largest: int) -> list[dict[str, Any]]:
    """The nodes without those of least influence; tokens and outputs stay."""

    def rank(node: dict[str, Any]) -> float:
        fixed = node["feature_type"] in ("embedding", "logit")
        return -1.0 if fixed else node["influence"]

    return sorted(nodes, key=rank)[:largest]


def _row(node: Mapping[str, Any]) -> tuple[int, str]:
    """Where a node's row stands among the rows, and its name."""
    if node["layer"] == "E":
        return -1, "tokens"
    layer = int(node["layer"])
    return layer, "output" if node["feature_type"] == "logit" else f"layer {layer}"


def _rows(nodes: Sequence[Mapping[str, Any]]) -> list[tuple[int, str]]:
    return sorted({_row(node) for node in nodes})


def _nodes(
    nodes: Sequence[Mapping[str, Any]],
    rows: Sequence[int],
    metadata: Mapping[str, Any],
    runs: Mapping[str, str],
    labels: Labels,
) -> list[dict[str, Any]]:
    before, drawn = 0.0, []
    for node in nodes:
        kind = KINDS[node["feature_type"]]
        share = node["influence"] or 0.0
        fields: dict[str, Any] = {
            "id": node["node_id"],
            "kind": kind,
            "row": rows.index(_row(node)[0]),
            "at": node["ctx_idx"],
            "share": round(share, 4),
            "own": None,
            "value": None,
            "text": _text(node, kind, metadata, labels),
            "page": "",
        }
        if kind in ("feature", "error"):
            fields["own"] = round(max(0.0, share - before), 6)
            before = max(before, share)
        if kind == "feature":
            fields["value"] = number(node["activation"])
            run = runs.get(node["hook"])
            if run:
                fields["page"] = in_the_app("feature", {"run": run, "feature": node["number"]})
        if kind == "logit":
            fields["value"] = f"p={node['token_prob']:.3f}"
        drawn.append(fields)
    return drawn


def _other(
    node: Mapping[str, Any], rows: Sequence[int], metadata: Mapping[str, Any], labels: Labels
) -> dict[str, Any]:
    """A node that pruning dropped and an attention score names."""
    kind, row = KINDS[node["feature_type"]], _row(node)[0]
    drawn = rows.index(row) if row in rows else -1
    text = _text(node, kind, metadata, labels)
    return {"kind": kind, "row": drawn, "at": node["ctx_idx"], "text": text}


def _attended(results: Mapping[str, Any], ends: Mapping[str, int]) -> dict[str, Any]:
    """Why a node's strongest head attends where it does; nodes by their number, those that are not
    drawn behind the others."""
    pairs = [
        [ends[query], ends[key], short(part)]
        for query, key, part in results["pair_wise_contributors"]
        if query in ends and key in ends
    ]
    edges = [
        [edge["layer"], edge["head"], edge["src"], short(edge["pattern"]), short(edge["weight"])]
        for edge in results["edges"]
    ]
    numbers = {name: short(results[name]) for name in ("score", "rest")}
    return {"edges": edges, "pairs": pairs, **numbers}


def short(value: float) -> float:
    """A number to the digits that are drawn."""
    return float(f"{value:.{DIGITS}g}")


def _text(node: Mapping[str, Any], kind: str, metadata: Mapping[str, Any], labels: Labels) -> str:
    token = metadata["prompt_tokens"][node["ctx_idx"]]
    if kind == "feature":
        label = labels(node["hook"], node["number"])
        return f"{node['number']} {label}".strip()
    if kind == "logit":
        return node["clerp"].removeprefix("Output ")
    return f"{token!r}"


def about(document: Mapping[str, Any]) -> Markup:
    """The prompt, what the model continues it with, and how much goes through features."""
    scores, given = document["scores"], document["next_token"]
    answer = {True: ", as asked for", False: ", not what was asked for", None: ""}
    continued = f"continued with {given!r}{answer[document['answered']]}"
    prompt = text(document["metadata"]["prompt"])
    top = html('<h1>{}</h1><span class="quiet">{}</span>', prompt, text(continued))
    floor = f"share of the output's influence that comes from tokens through features; without any \
feature {number(scores['floor'])}"
    theirs = f"influence-weighted share of inputs of features and outputs that are no errors; \
{number(scores['circuit_tracer_completeness'])} as circuit-tracer counts"
    pairs = [
        ("replacement", number(scores["replacement"]), floor),
        ("completeness", number(scores["completeness"]), theirs),
        ("active features", f"{document['n_features']:,}", "of the whole graph"),
        ("shown", f"{len(document['nodes']):,}", "nodes that pruning keeps"),
    ]
    return html('<div class="head">{}</div>{}', top, stats(pairs))


def faithfulness(fields: Mapping[str, Any]) -> Markup:
    """Foretold against measured changes of the outputs, over all prompts of the folder."""
    if not fields:
        return EMPTY
    rows = []
    for name, (short, meaning) in COLUMNS.items():
        if name not in fields:
            continue
        column = fields[name]
        correlation, slope = estimate(column["correlation"]), estimate(column["slope"])
        chance = number(column["correlation"]["null"])
        label = html('<span title="{}">{}</span>', meaning, short)
        rows.append(row(label, correlation, chance, slope))
    heads = [head("ablated in", ""), *map(head, ("correlation", "of controls", "slope"))]
    n_ablated = f"{fields['n_ablated']} features ablated one by one; change of the outputs against \
what the graph foretells; controls are other features of the layer and position"
    return title("Is it to be believed?", n_ablated) + grid(heads, rows)
