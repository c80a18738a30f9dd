"""The suite of a report as HTML: each number of the SAE, its null, and those of its controls."""

from collections.abc import Mapping
from typing import Any

from saelab.evaluation.stated import not_separated

from .draw import estimate, grid, head, message, number, row, text, title
from .html import EMPTY, Markup, html


def suite(document: Mapping[str, Any]) -> Markup:
    """A row per number; one that does not tell the SAE from a control is marked. Nothing of a
    report without a suite."""
    part = document.get("suite")
    if not part:
        return EMPTY
    by_key: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for one in part["rows"]:
        key = (one["evaluation"], one["metric"], one["label"])
        by_key.setdefault(key, {})[one["dictionary"]] = one
    names = list(dict.fromkeys(one["dictionary"] for one in part["rows"]))
    others = [name for name in names if name != "sae"]
    alike = not_separated(part["rows"])
    shown = ("this SAE", "null", *(name.replace("_", " ") for name in others))
    heads = [head("", ""), *(head(text(name)) for name in shown)]
    lines = [
        _line(key, known, others, alike.get(key, []))
        for key, known in by_key.items()
        if "sae" in known
    ]
    missing = "; ".join(f"{name}: {why}" for name, why in part["not_measured"].items())
    note = html('<p class="quiet">Not measured: {}</p>', message(missing)) if missing else EMPTY
    return title("Suite", "with 95% intervals") + grid(heads, lines, "suite") + note


def _line(
    key: tuple[str, str, str], known: Mapping[str, Any], others: list[str], alike: list[str]
) -> Markup:
    evaluation, metric, label = key
    name = html('{} <span class="quiet">{}</span>', text(metric), text(f"{evaluation} {label}"))
    why = ""
    if alike:
        name = html('{} <b class="mark no">not separated</b>', name)
        why = f"does not tell it from: {', '.join(alike)}"
    values = (number(known[each]["value"]) if each in known else "" for each in others)
    return row(name, estimate(known["sae"]), number(known["sae"]["null"]), *values, title=why)
