"""A circuit's document as HTML. Nothing imports Streamlit."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from saelab.runs import kind_of

from .draw import cell, estimate, grid, head, line, link, number, row, stats, text, title, tokens
from .html import EMPTY, Markup, html, joined

WORD = re.compile(r"\s*\S+|\s+")  # with the blanks before it
AGREEMENT = {"auc": "AUC", "precision": "precision", "overlap": "overlap"}  # with a published one


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
    return html('<div class="head">{}</div>{}', top, stats([*pairs, *_budget(document)]))


def _budget(document: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """How much was measured in the time that was given, where that was limited."""
    budget = document.get("budget")
    if budget is None:
        return []
    parts = {name: part for name, part in budget.items() if name != "seconds"}
    told = ", ".join(
        f"{part['measured']:,} of {part['of']:,} {name}" for name, part in parts.items()
    )
    return [
        (f"in {budget['seconds']:g} s", told, "measured; the others rank last, without a score")
    ]


def prompts(document: Mapping[str, Any]) -> Markup:
    """Prompts that it comes from, with twins, what differs marked, and answers."""
    known = document.get("prompts")
    if not isinstance(known, Mapping):
        return EMPTY
    rows = []
    for prompt in known.get("examples", ()):
        clean, twin = _marked(prompt["clean"], prompt["corrupted"] or "")
        right, wrong = (tokens(prompt[name][:4]) for name in ("right", "wrong"))
        rows.append(line(cell(clean, ""), cell(twin, ""), cell(right, ""), cell(wrong, "")))
    sizes = (
        f"{known['scoring']:,} prompts scored, {known['held_out']:,} held out; the first of those"
    )
    heads = (head(name, "") for name in ("prompt", "corrupted twin", "answer", "wrong answer"))
    table = grid(heads, rows, "prompts") if rows else EMPTY
    return title("Prompts", sizes if rows else sizes.partition(";")[0]) + table


def _marked(clean: str, twin: str) -> tuple[Markup, Markup]:
    """Both texts, words in which they differ marked."""
    words = [WORD.findall(one) for one in (clean, twin)]
    same = len(words[0]) == len(words[1])
    pieces: list[list[Markup]] = [[], []]
    for mine, theirs in zip(*words, strict=True) if same else ():
        for place, word in enumerate((mine, theirs)):
            shown = text(word, lines=True)
            pieces[place].append(shown if mine == theirs else html("<mark>{}</mark>", shown))
    if not same:
        pieces = [[text(clean, lines=True)], [text(twin, lines=True)]]
    first, second = (html('<span class="prompt">{}</span>', joined(each)) for each in pieces)
    return first, second


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


def published(document: Mapping[str, Any]) -> Markup:
    """How well heads and edges agree with a paper's circuit, beside scores dealt out anew within
    layers, and how many heads of each role are among the best."""
    paper = document.get("published")
    if paper is None:
        return EMPTY
    rows = []
    for kind in (kind for kind in ("heads", "edges") if paper[kind]):
        held = paper[kind]
        for name in AGREEMENT:
            low, high = held["chance"][name]
            chance = f"{number(held[name]['null'])} [{number(low)}, {number(high)}]"
            members = f"{held['members']} of {held['of']:,} {kind}"
            rows.append(row(f"{AGREEMENT[name]}, {members}", estimate(held[name]), chance))
    roles = [
        row(text(role), f"{n['among_the_best']} of {n['heads']}")
        for role, n in paper["roles"].items()
    ]
    about_ = html("with {}; null: scores dealt out anew within layers", text(paper["source"]))
    heads = (head("", ""), *map(head, ("measured", "null, 95% of draws")))
    best = title("Roles", "heads of each among as many best ones") + grid((), roles)
    return title("Published circuit", about_) + grid(heads, rows) + (best if roles else EMPTY)


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
