"""The supervised section of a run's overview as HTML: the SAE beside dictionaries built from
labels, on one task."""

from collections.abc import Mapping
from typing import Any

from ..cli.supervise import SCORES
from .draw import estimate, number, text


def section(found: Mapping[str, Any]) -> str:
    """The section for one of a run's supervise-TASK.json."""
    unit = f"{found['metric'].replace('_', ' ')} {number(found['metric_clean'])}, {number(found['metric_mean'])} mean-ablated"
    size = (
        f"{found['prompts']['fit']:,} prompts fitted, {found['prompts']['test']:,} tested; {unit}"
    )
    heads = "".join(
        f'<th class="n" title="{text(why)}">{name}</th>' for name, why in SCORES.values()
    )
    rows = "".join(_row(found, name) for name in found["sufficiency"])
    nulls = "".join(f'<td class="n">{number(found[key]["sae"]["null"])}</td>' for key in SCORES)
    table = f'<thead><tr><th></th>{heads}</tr></thead><tbody>{rows}<tr><td class="quiet">null</td>{nulls}</tr></tbody>'
    title = f"<h2>Supervised: {text(found['task'])} <small>{text(size)}</small></h2>"
    return f'{title}<table class="grid report">{table}</table>{_edits(found)}'


def _row(found: Mapping[str, Any], name: str) -> str:
    cells = "".join(f'<td class="n">{estimate(found[key][name])}</td>' for key in SCORES)
    return f"<tr><td>{_name(name)}</td>{cells}</tr>"


def _name(name: str) -> str:
    return "<b>this SAE</b>" if name == "sae" else text(name.replace("_", " "))


def _edits(found: Mapping[str, Any]) -> str:
    """Edit agreement by the number of features an edit may change."""
    table: dict[str, dict[int, float | None]] = {}
    for row in found["edits"]:
        table.setdefault(row["dictionary"], {})[row["changes"]] = row["edit_agreement"]["value"]
    counts = sorted({row["changes"] for row in found["edits"]})
    heads = "".join(f'<th class="n">{count}</th>' for count in counts)
    body = ""
    for name, values in table.items():
        cells = "".join(f'<td class="n">{number(values.get(count))}</td>' for count in counts)
        body += f"<tr><td>{_name(name)}</td>{cells}</tr>"
    head = f"<thead><tr><th>edit agreement by features changed</th>{heads}</tr></thead>"
    return f'<table class="grid report">{head}<tbody>{body}</tbody></table>'
