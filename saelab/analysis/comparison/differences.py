"""Paired differences of every metric of two SAEs, and of two configurations over seeds."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from saelab.analysis.comparison.together import Together
from saelab.evaluation import rows
from saelab.evaluation.rows import SPLICED, Metric
from saelab.statistics import Estimate, least, over_seeds, paired, verdict
from saelab.statistics.bootstrap import total

UNKNOWN = "spread not known"  # fewer than three seeds that both have


class Difference(NamedTuple):
    """A metric of two SAEs, and the second's less the first's."""

    metric: Metric
    first: float
    second: float
    difference: Estimate

    def as_dict(self) -> dict[str, Any]:
        """Fields of a row of compare.json; the verdict is on the second."""
        return {
            "metric": self.metric.key,
            "label": self.metric.label,
            "better": self.metric.better,
            "first": self.first,
            "second": self.second,
            **self.difference.as_dict(),
            "least": least(self.difference),
            "verdict": verdict(self.difference, self.metric.better),
        }


def differences(together: Together, first: str, second: str, seed: int = 0) -> list[Difference]:
    """Every metric of two of the SAEs, paired by document; of the dead features, which are counted
    on training tokens, there is no interval.

    >>> [each.as_dict()["verdict"] for each in differences(together, "a", "b")]
    """
    measured = {
        name: {
            **dict.fromkeys(SPLICED, together.tables[name]),
            "firing": {"fired": fired, "tokens": together.tables[name]["tokens"]},
            **({"training": {"fired": together.alive[name][None]}} if together.alive else {}),
        }
        for name, fired in together.fired.items()
        if name in (first, second)
    }
    absent = {"prediction"} if together.no_losses else set()
    wanted = [row for row in rows.table().values() if row.source not in absent]
    return [
        _difference(row, measured[first], measured[second], len(together.documents), seed)
        for row in wanted
        if row.source in measured[first]
    ]


def _difference(
    row: Metric, first: Mapping[str, Any], second: Mapping[str, Any], n_documents: int, seed: int
) -> Difference:
    sums = first[row.source], second[row.source]
    one, other = (float(row.statistic(total(each))) for each in sums)
    if row.source == "training":
        return Difference(row, one, other, Estimate(other - one, null=0.0))
    of_features = row.source == "firing"
    changed = paired(sums[1], sums[0], row.statistic, n_documents, seed, of_features=of_features)
    return Difference(row, one, other, changed)


def over_common_seeds(
    first: Mapping[int, Mapping[str, float | None]],
    second: Mapping[int, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Two configurations compared: for each metric, Student's t over the differences within each
    seed that both were trained with; "spread not known" for fewer than three of them.

    first, second: metrics by seed. Raises no error: with no common seed there are no values.
    """
    common = sorted(set(first) & set(second))
    table = rows.table()
    keys = [key for key in table if all(key in side[s] for side in (first, second) for s in common)]
    return [
        _over_seeds(table[key], [_within(first[s], second[s], key) for s in common])
        for key in keys
        if common
    ]


def _within(
    mine: Mapping[str, float | None], theirs: Mapping[str, float | None], key: str
) -> float:
    first, second = mine[key], theirs[key]
    return float("nan") if first is None or second is None else second - first


def _over_seeds(row: Metric, change_S: Sequence[float]) -> dict[str, Any]:
    """A row of a comparison of configurations."""
    difference = over_seeds(change_S, null=0.0)
    known = difference.low is not None
    return {
        "metric": row.key,
        "label": row.label,
        "better": row.better,
        **difference.as_dict(),
        "n": len(change_S),
        "verdict": verdict(difference, row.better) if known else UNKNOWN,
    }
