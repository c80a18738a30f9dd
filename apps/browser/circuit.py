"""A circuit's document as HTML. Texts go through `draw`, which escapes them; nothing imports
Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.runs import kind_of

from .draw import cell, grid, head, link, number, row, stats, text


def by_feature(document: Mapping[str, Any]) -> bool:
    """Whether it is the circuit of features rather than of heads: its schema says so."""
    return kind_of(document) == "feature-circuit"


def menu(names: Sequence[str], current: str) -> str:
    """Links to all circuits, the one shown in bold."""
    parts = [
        f"<b>{text(name)}</b>" if name == current else link("circuits", text(name), circuit=name)
        for name in names
    ]
    return f'<p class="quiet">{" · ".join(parts)}</p>'


def about(document: dict[str, Any]) -> str:
    """What was measured: task, method, model, and the metric with everything, with twins, and
    without heads."""
    how = f"{text(document['method'])} · {text(document['model'])}"
    title = f'<h1>{text(document["task"])}</h1><span class="quiet">{how}</span>'
    empty = "every head resampled, MLPs kept"
    if by_feature(document):
        empty = "every feature and error at its mean"
    runs = {"clean": "the whole model", "corrupted": "on the corrupted twins", "empty": empty}
    unit = text(document["metric"].replace("_", " "))
    pairs = [
        (run, number(document[f"metric_{run}"]), f"{unit}: {why}") for run, why in runs.items()
    ]
    if by_feature(document):
        where = f"features and errors at {len(document['hooks'])} hook points"
        pairs.append(("nodes", f"{document['n_nodes']:,}", where))
    else:
        area = "area under faithfulness, heads by signed score"
        pairs.append(("CPR", number(document["cpr"]), area))
    area = "area under |1 - faithfulness|, heads or nodes by size of score; 0 is best"
    pairs.append(("CMD", number(document["cmd"]), area))
    return f'<div class="head">{title}</div>{stats(pairs)}'


def agreement(document: dict[str, Any]) -> str:
    """AUC and average precision at each level of the truth, beside what knowing nothing gives."""
    truth = document["truth"]
    if truth is None:
        return ""
    rows = []
    for level in truth["levels"]:
        shares = [f"{level['level']:.0%}", str(len(level["members"]))]
        scores = [number(level["auc"]), number(level["average_precision"])]
        rows.append(f"<tr>{''.join(map(cell, shares + scores))}</tr>")
    by_layer, by_chance = number(document["auc_layer_index"]), number(document["auc_random"])
    null = f"AUC by layer number {by_layer}, by random scores {by_chance}"
    title = f"<h2>Agreement <small>with the {truth['kind']} circuit; {null}</small></h2>"
    return title + grid(map(head, ("effect", "heads", "AUC", "average precision")), rows)


def nodes(document: dict[str, Any], names: Mapping[str, str], limit: int) -> str:
    """The strongest nodes; a feature whose run is here (names: its folder -> its name) is a link to
    its page."""
    rows = []
    for node in document["nodes"][:limit]:
        run, label = names.get(document["runs"][node["hook"]]), text(node["name"])
        if run is not None and node["feature"] is not None:
            label = link("feature", label, run=run, feature=node["feature"])
        rows.append(row(label, number(node["effect"])))
    meaning = "strongest first; change of the metric when the node takes its corrupted value"
    return f"<h2>Nodes <small>{meaning}</small></h2>{grid((), rows)}"


def edges(strongest: Sequence[dict[str, Any]]) -> str:
    """The strongest edges."""
    if not strongest:
        return ""
    rows = [
        row(f"{text(edge['source'])} → {text(edge['target'])}", number(edge["score"]))
        for edge in strongest
    ]
    return f"<h2>Edges <small>strongest first</small></h2>{grid((), rows)}"
