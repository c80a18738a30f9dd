"""Probes of one's own labels as HTML: what a few latents tell, beside what needs no SAE."""

from collections.abc import Mapping
from typing import Any

from .draw import estimate, grid, head, number, row, text, title
from .html import EMPTY, Markup, html

LEVELS = {"last": "last token", "pooled": "mean over tokens", "token": "each token"}
SHOWN = (1, 5, None)  # numbers of features


def labelled(document: Mapping[str, Any]) -> Markup:
    """Accuracy of each label's probes, of the SAE's with its interval; nothing of a report without
    labels."""
    part = document.get("labelled")
    if not part:
        return EMPTY
    rows = [one for one in part["rows"] if one["k"] in SHOWN]
    columns = list(dict.fromkeys((one["dictionary"], one["k"]) for one in rows))
    columns.sort(key=lambda column: column[0] != "sae")
    heads = [head("", ""), *(head(text(_name(*column))) for column in columns), head("null")]
    cells: dict[tuple, dict] = {}
    for one in rows:
        place = (one["task"], one["level"], one["label"])
        cells.setdefault(place, {})[one["dictionary"], one["k"]] = one
    lines = [_line(place, known, columns) for place, known in cells.items()]
    about = "accuracy, half is chance; dense: every neuron; null: shuffled labels, SAE 5"
    return title("Own labels", about) + grid(heads, lines, "labels") + _left_out(part)


def _name(dictionary: str, k: int | None) -> str:
    name = "SAE" if dictionary == "sae" else dictionary.replace("_", " ")
    return name + ("" if k is None else f" {k}")


def _line(place: tuple[str, str, str], known: dict, columns: list) -> Markup:
    task, level, label = place
    values = (
        estimate(known[column]["accuracy"])
        if column[0] == "sae"
        else number(known[column]["accuracy"]["value"])
        for column in columns
    )
    widest = known["sae", max(k for name, k in columns if name == "sae")]
    auc = number(widest["auc"]["value"])
    why = f"AUC {auc} from {widest['k']} latents, {widest['n_test']:,} test examples"
    name = html('{} <span class="quiet">{}, {}</span>', text(label), text(task), LEVELS[level])
    return row(name, *values, number(widest["accuracy"]["null"]), title=why)


def _left_out(part: Mapping[str, Any]) -> Markup:
    lines = [f"{name}: {reason}" for name, reason in part["left_out"].items()]
    lines += [f"{name}: of {n:,} texts the end is read" for name, n in part["cut"].items()]
    return html('<p class="quiet">Left out: {}</p>', text("; ".join(lines))) if lines else EMPTY
