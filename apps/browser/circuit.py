"""A circuit's document as HTML. Texts go through `draw`, which escapes them; nothing imports
Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

from .draw import link, number, stats, text


def menu(names: Sequence[str], current: str) -> str:
    """Links to all circuits, the one shown in bold."""
    parts = [
        f"<b>{text(name)}</b>" if name == current else link("circuits", text(name), circuit=name)
        for name in names
    ]
    return f'<p class="quiet">{" · ".join(parts)}</p>'


def about(shown: dict[str, Any]) -> str:
    """What was measured: task, method, model, and the metric with everything, with twins, and
    without heads."""
    by = f'<span class="quiet">{text(shown["method"])} · {text(shown["model"])}</span>'
    head = f'<div class="head"><h1>{text(shown["task"])}</h1>{by}</div>'
    unit = text(shown["metric"].replace("_", " "))
    empty = (
        "every feature and error at its mean"
        if "nodes" in shown
        else "every head resampled, MLPs kept"
    )
    whole = {"clean": "the whole model", "corrupted": "on the corrupted twins", "empty": empty}
    pairs = [
        (name, number(shown[f"metric_{name}"]), f"{unit}: {why}") for name, why in whole.items()
    ]
    if "nodes" in shown:
        pairs.append(
            (
                "nodes",
                f"{shown['n_nodes']:,}",
                f"features and errors at {len(shown['hooks'])} hook points",
            )
        )
    else:
        pairs.append(
            ("CPR", number(shown["cpr"]), "area under faithfulness, heads by signed score")
        )
    pairs.append(
        (
            "CMD",
            number(shown["cmd"]),
            "area under |1 - faithfulness|, heads or nodes by size of score; 0 is best",
        )
    )
    return head + stats(pairs)


def agreement(shown: dict[str, Any]) -> str:
    """AUC and average precision at each level of the truth, beside what knowing nothing gives."""
    if shown["truth"] is None:
        return ""
    rows = "".join(
        f'<tr><td class="n">{row["level"]:.0%}</td><td class="n">{len(row["members"])}</td>'
        f'<td class="n">{number(row["auc"])}</td><td class="n">{number(row["average_precision"])}</td></tr>'
        for row in shown["truth"]["levels"]
    )
    head = '<tr><th class="n">effect</th><th class="n">heads</th><th class="n">AUC</th><th class="n">average precision</th></tr>'
    null = f"by layer number {number(shown['auc_layer_index'])}, by random scores {number(shown['auc_random'])}"
    title = (
        f"<h2>Agreement <small>with the {shown['truth']['kind']} circuit; AUC {null}</small></h2>"
    )
    return f'{title}<table class="grid">{head}{rows}</table>'


def nodes(shown: dict[str, Any], names: Mapping[str, str], limit: int) -> str:
    """The strongest nodes; a feature whose run is here (names: its folder -> its name) is a link to
    its page."""
    rows = []
    for row in shown["nodes"][:limit]:
        run, label = names.get(shown["runs"][row["hook"]]), text(row["name"])
        if run is not None and row["feature"] is not None:
            label = link("feature", label, run=run, feature=row["feature"])
        rows.append(f'<tr><td>{label}</td><td class="n">{number(row["effect"])}</td></tr>')
    title = "<h2>Nodes <small>strongest first; change of the metric when the node takes its corrupted value</small></h2>"
    return f'{title}<table class="grid">{"".join(rows)}</table>'


def edges(shown: Sequence[dict[str, Any]]) -> str:
    """The strongest edges."""
    if not shown:
        return ""
    rows = "".join(
        f'<tr><td>{text(edge["source"])} → {text(edge["target"])}</td><td class="n">{number(edge["score"])}</td></tr>'
        for edge in shown
    )
    return f'<h2>Edges <small>strongest first</small></h2><table class="grid">{rows}</table>'
