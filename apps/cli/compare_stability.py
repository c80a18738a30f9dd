"""In how many of the other seeds each feature of a run comes again: `compare --stability`."""

import sys
from typing import TYPE_CHECKING, Any

from saelab.runs import RunFolder

from .common import document, keep, show, told

if TYPE_CHECKING:
    from saelab.analysis.comparison.stability import Stability

    from .groups import Measured

COLUMNS = {
    "cosine": "write alike",
    "cofiring": "fire alike",
    "subspace": "span alike, of groups",
}


def run(of: "Measured", seed: int, *, json: bool) -> int:
    """Measure, write stability.json into every run, print."""
    from saelab.analysis.comparison import stability

    stable = stability.stability(of.saes, of.together.codes, seed)
    over = {name: stability.over_runs(stable, name).as_dict() for name in COLUMNS}
    for warning in _warnings(of):
        print(warning, file=sys.stderr)
    runs = []
    for name, each in stable.items():
        result = document("stability", seed, **_fields(name, each, of), over_seeds=over)
        keep(RunFolder(of.folders[name]).stability, result)
        runs.append(result)
    whole = document("stabilities", seed, runs=runs, over_seeds=over)
    show(whole, json, text(whole))
    return 0


def _warnings(of: "Measured") -> list[str]:
    """What makes runs no seeds of one configuration."""
    from saelab.analysis.comparison.configurations import groups
    from saelab.analysis.comparison.starts import start_of

    lines = []
    if len(groups(of.saes)) > 1:
        lines.append(
            "these runs differ by more than their seeds: what comes again is in all of them"
        )
    starts = [start for sae in of.saes.values() if (start := start_of(sae)) is not None]
    if len(set(starts)) < len(starts):
        lines.append("some of these runs started from the same random rows, which they still share")
    return lines


def _fields(name: str, each: "Stability", of: "Measured") -> dict[str, Any]:
    """Of one run, column by column."""
    from saelab import matching

    return {
        "run": name,
        "others": [other for other in of.saes if other != name],
        "sae": RunFolder(of.folders[name]).sae_digest(),
        "tokens": int(of.together.tables[name]["tokens"].sum()),
        "threshold": matching.FOUND,
        "means": {
            key: {"value": each.mean(key), "low": None, "high": None, "null": each.nulls[key]}
            for key in COLUMNS
        },
        "features": {
            "fired": each.fired.tolist(),
            **{key: _rounded(getattr(each, key)) for key in (*COLUMNS, "start")},
        },
    }


def _rounded(column_F: Any) -> list[float | None]:
    return [None if value != value else round(float(value), 4) for value in column_F]


def text(result: dict[str, Any]) -> str:
    """For people."""
    lines = [f"{'share of the other seeds':34}{'mean [95% over seeds]':32}{'null':>8}"]
    for key, words in COLUMNS.items():
        field = result["over_seeds"][key]
        interval = ""
        if field["low"] is not None:
            interval = f" [{field['low']:.1%}, {field['high']:.1%}]"
        value = f"{told(field['value'], '.1%')}{interval}"
        lines.append(f"{words:34}{value:32}{told(field['null'], '.1%'):>8}")
    runs = result["runs"]
    lines.append(
        f"{len(runs)} runs, {runs[0]['tokens']:,} tokens, live features; one to one above "
        f"{runs[0]['threshold']} by cosine of decoder rows, or correlation of activations; below 3 "
        "seeds no interval"
    )
    lines.append("next: saelab browse, where lists are filtered and sorted by stability")
    return "\n".join(lines)
