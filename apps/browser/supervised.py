"""The supervised section of a run's overview as HTML: the SAE beside dictionaries built from
labels, on one task."""

from collections.abc import Mapping
from typing import Any

from .draw import estimate, number, text

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


def section(document: Mapping[str, Any]) -> str:
    """The section for one of a run's supervise-TASK.json."""
    metric = document["metric"].replace("_", " ")
    unit = f"{metric} {number(document['metric_clean'])}, {number(document['metric_mean'])} mean-ablated"
    size = f"{document['prompts']['fit']:,} prompts fitted, {document['prompts']['test']:,} tested; {unit}"
    heads = "".join(
        f'<th class="n" title="{text(why)}">{name}</th>' for name, why in SCORES.values()
    )
    rows = "".join(_row(document, name) for name in document["sufficiency"])
    nulls = "".join(f'<td class="n">{number(document[key]["sae"]["null"])}</td>' for key in SCORES)
    rows += f'<tr><td class="quiet">null</td>{nulls}</tr>'
    table = f"<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}</tbody>"
    title = f"<h2>Supervised: {text(document['task'])} <small>{text(size)}</small></h2>"
    return f'{title}<table class="grid report">{table}</table>{_edits(document)}'


def _row(document: Mapping[str, Any], name: str) -> str:
    cells = "".join(f'<td class="n">{estimate(document[key][name])}</td>' for key in SCORES)
    return f"<tr><td>{_name(name)}</td>{cells}</tr>"


def _name(name: str) -> str:
    return "<b>this SAE</b>" if name == "sae" else text(name.replace("_", " "))


def _edits(document: Mapping[str, Any]) -> str:
    """Edit agreement by the number of features an edit may change."""
    table: dict[str, dict[int, float | None]] = {}
    for row in document["edits"]:
        table.setdefault(row["dictionary"], {})[row["changes"]] = row["edit_agreement"]["value"]
    counts = sorted({row["changes"] for row in document["edits"]})
    heads = "".join(f'<th class="n">{count}</th>' for count in counts)
    body = ""
    for name, values in table.items():
        cells = "".join(f'<td class="n">{number(values.get(count))}</td>' for count in counts)
        body += f"<tr><td>{_name(name)}</td>{cells}</tr>"
    head = f"<thead><tr><th>edit agreement by features changed</th>{heads}</tr></thead>"
    return f'<table class="grid report">{head}<tbody>{body}</tbody></table>'
