"""The supervised section of a run's overview as HTML: the SAE beside dictionaries built from
labels, on one task."""

from collections.abc import Mapping
from typing import Any

from .draw import estimate, grid, head, number, row, text, title
from .html import Markup, html

SCORES = {  # as the command line prints them too
    "sufficiency": (
        "sufficiency",
        "share of the metric that stays with the reconstruction in the activation's place",
    ),
    "necessity": (
        "necessity",
        "share of mean ablation's damage that taking the reconstruction away does",
    ),
    "edit_agreement": (
        "edit agreement",
        "share of edits after which the model predicts as after the ground-truth patch",
    ),
    "edit_success": (
        "edit success",
        "the same among edits whose ground-truth patch changes the prediction",
    ),
    "edit_magnitude": (
        "edit magnitude",
        "share of the reconstruction that an edit removes: small where attributes are apart",
    ),
    "f1": ("F1", "of the best feature for each attribute value"),
}


def section(document: Mapping[str, Any]) -> Markup:
    """The section for one of a run's supervise-TASK.json."""
    heads = [head(name, title=why) for name, why in SCORES.values()]
    rows = [_row(document, name) for name in document["sufficiency"]]
    nulls = (number(document[key]["sae"]["null"]) for key in SCORES)
    rows.append(row(html('<span class="quiet">null</span>'), *nulls))
    table = grid([head("", ""), *heads], rows, "report")
    heading = title(f"Supervised: {document['task']}", _size(document))
    return heading + table + _edits(document)


def _size(document: Mapping[str, Any]) -> str:
    prompts, metric = document["prompts"], document["metric"].replace("_", " ")
    clean, ablated = number(document["metric_clean"]), number(document["metric_mean"])
    return (
        f"{prompts['fit']:,} prompts fitted, {prompts['test']:,} tested; "
        f"{metric} {clean}, {ablated} mean-ablated"
    )


def _row(document: Mapping[str, Any], name: str) -> Markup:
    return row(_name(name), *(estimate(document[key][name]) for key in SCORES))


def _name(name: str) -> Markup:
    return html("<b>this SAE</b>") if name == "sae" else text(name.replace("_", " "))


def _edits(document: Mapping[str, Any]) -> Markup:
    """Edit agreement by the number of features an edit may change."""
    agreement: dict[str, dict[int, float | None]] = {}
    for edit in document["edits"]:
        by_changes = agreement.setdefault(edit["dictionary"], {})
        by_changes[edit["changes"]] = edit["edit_agreement"]["value"]
    counts = sorted({edit["changes"] for edit in document["edits"]})
    rows = [
        row(_name(name), *(number(values.get(count)) for count in counts))
        for name, values in agreement.items()
    ]
    heads = map(head, map(str, counts))
    return grid([head("edit agreement by features changed", ""), *heads], rows, "report")
