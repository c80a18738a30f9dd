"""Does a metric tell the SAE from controls that learned nothing, or half of it? Paired differences
with every control; a metric that some control equals says nothing of what the SAE has learned.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from saelab.evaluation.rows import SPLICED, Metric
from saelab.statistics import least, paired, verdict

# Controls that have the SAE's own code, so that their features fire as its do.
ITS_CODE = ("permuted_decoder", "random_directions", "shuffled_code")
KNOWS = "oracle"  # a control that an SAE need not be better than


def separation(
    sums: Mapping[str, Mapping[str, Any]],
    controls: Sequence[str],
    rows: Iterable[Metric],
    n_documents: int,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Of every metric with a better side and every control: the SAE's less the control's, paired by
    document, and whether the SAE is better. sums: by SAE (`sae` and the controls), then by the
    metric's source.

    Chanin 2026 (arXiv 2605.18229): most metrics of SAEs fail it somewhere.
    """
    return [
        _of_one(row, name, sums["sae"][row.source], sums[name][row.source], n_documents, seed)
        for row in rows
        for name in controls
        if row.better != "none" and row.source in sums[name] and _means(row, name)
    ]


def _means(row: Metric, control: str) -> bool:
    """Whether the metric can differ from that control at all, and the control is to be beaten."""
    return control != KNOWS and (row.source in SPLICED or control not in ITS_CODE)


def _of_one(
    row: Metric, control: str, mine: Any, theirs: Any, n_documents: int, seed: int
) -> dict[str, Any]:
    of_features = row.source == "firing"
    statistic = row.compared or row.statistic
    change = paired(mine, theirs, statistic, n_documents, seed, of_features=of_features)
    return {
        "metric": row.key,
        "control": control,
        **change.as_dict(),
        "least": least(change),
        "verdict": verdict(change, row.better),
    }


def not_separated(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """By metric of a report the controls that the SAE is not better than."""
    by_metric: dict[str, list[str]] = {}
    for row in report.get("separation", ()):
        if row["verdict"] != "better":
            by_metric.setdefault(row["metric"], []).append(row["control"].replace("_", " "))
    return by_metric
