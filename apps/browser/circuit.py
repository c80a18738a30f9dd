"""A circuit's document as HTML. Nothing imports Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.runs import kind_of

from .draw import cell, grid, head, line, link, number, row, stats, text, title
from .html import EMPTY, Markup, html, joined


def by_feature(document: Mapping[str, Any]) -> bool:
    """Whether it is the circuit of features rather than of heads: its schema says so."""
    return kind_of(document) == "feature-circuit"


def menu(names: Sequence[str], current: str) -> Markup:
    """Links to all circuits, the one shown in bold."""
    parts = [
        html("<b>{}</b>", text(name))
        if name == current
        else link("circuits", text(name), circuit=name)
        for name in names
    ]
    return html('<p class="quiet">{}</p>', joined(parts, " · "))


def about(document: dict[str, Any]) -> Markup:
    """What was measured: task, method, model, and the metric with everything, with twins, and
    without heads."""
    how = html("{} · {}", text(document["method"]), text(document["model"]))
    top = html('<h1>{}</h1><span class="quiet">{}</span>', text(document["task"]), how)
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
    return html('<div class="head">{}</div>{}', top, stats(pairs))


def agreement(document: dict[str, Any]) -> Markup:
    """AUC and average precision at each level of the truth, beside what knowing nothing gives."""
    truth = document["truth"]
    if truth is None:
        return EMPTY
    rows = []
    for level in truth["levels"]:
        shares = [f"{level['level']:.0%}", str(len(level["members"]))]
        scores = [number(level["auc"]), number(level["average_precision"])]
        rows.append(line(*map(cell, shares + scores)))
    by_layer, by_chance = number(document["auc_layer_index"]), number(document["auc_random"])
    null = f"AUC by layer number {by_layer}, by random scores {by_chance}"
    about_ = f"with the {truth['kind']} circuit; {null}"
    return title("Agreement", about_) + grid(
        map(head, ("effect", "heads", "AUC", "average precision")), rows
    )


def nodes(document: dict[str, Any], names: Mapping[str, str], limit: int) -> Markup:
    """The strongest nodes; a feature whose run is here (names: its folder -> its name) is a link to
    its page."""
    rows = []
    for node in document["nodes"][:limit]:
        run, label = names.get(document["runs"][node["hook"]]), text(node["name"])
        if run is not None and node["feature"] is not None:
            label = link("feature", label, run=run, feature=node["feature"])
        rows.append(row(label, number(node["effect"])))
    meaning = "strongest first; change of the metric when the node takes its corrupted value"
    return title("Nodes", meaning) + grid((), rows)


def edges(strongest: Sequence[dict[str, Any]]) -> Markup:
    """The strongest edges."""
    if not strongest:
        return EMPTY
    rows = [
        row(html("{} → {}", text(edge["source"]), text(edge["target"])), number(edge["score"]))
        for edge in strongest
    ]
    return title("Edges", "strongest first") + grid((), rows)
