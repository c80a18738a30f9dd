"""Paired differences of every metric of two SAEs, and of two configurations over seeds."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from saelab.analysis.comparison.together import Together
from saelab.evaluation import rows
from saelab.evaluation.rows import SPLICED, Metric
from saelab.statistics import Estimate, between_seeds, least, paired, verdict
from saelab.statistics.bootstrap import total

UNKNOWN = "spread not known"  # fewer than three seeds of one of the two


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
    one, other = _sums(together, first), _sums(together, second)
    n_documents = len(together.documents)
    return [_difference(row, one, other, n_documents, seed) for row in _rows(together)]


def values(together: Together, name: str) -> dict[str, float]:
    """Every metric of one of the SAEs."""
    sums = _sums(together, name)
    return {row.key: float(row.statistic(total(sums[row.source]))) for row in _rows(together)}


def _rows(together: Together) -> list[Metric]:
    """The metrics that were measured."""
    absent = {"output", "classes"} | ({"prediction"} if together.no_losses else set())
    absent |= set() if together.alive else {"training"}
    return [row for row in rows.table().values() if row.source not in absent]


def _sums(together: Together, name: str) -> dict[str, Any]:
    """An SAE's sums by the source of metrics."""
    table = together.tables[name]
    sums: dict[str, Any] = dict.fromkeys(SPLICED, table)
    sums["firing"] = {"fired": together.fired[name], "tokens": table["tokens"]}
    if together.alive:
        sums["training"] = {"fired": together.alive[name][None]}
    return sums


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


def over_seeds_of(
    first: Mapping[int, Mapping[str, float | None]],
    second: Mapping[int, Mapping[str, float | None]],
) -> list[dict[str, Any]]:
    """Two configurations compared, metrics by seed: every metric that all have, with the interval
    that `between_seeds` allows and what a difference must exceed to be told apart; "spread not
    known" without one."""
    runs = [*first.values(), *second.values()]
    table = rows.table()
    keys = [key for key in table if all(key in values for values in runs)]
    return [_over_seeds(table[key], first, second) for key in keys]


def _over_seeds(row: Metric, first: Mapping[int, Any], second: Mapping[int, Any]) -> dict[str, Any]:
    """A row of a comparison of configurations."""
    mine, theirs = (
        {seed: _known(values[row.key]) for seed, values in side.items()} for side in (first, second)
    )
    difference, pairing = between_seeds(mine, theirs)
    known = difference.low is not None
    n_common = len(set(mine) & set(theirs))
    return {
        "metric": row.key,
        "label": row.label,
        "better": row.better,
        **difference.as_dict(),
        "least": least(difference),
        "n": n_common if pairing == "matched" else min(len(mine), len(theirs)),
        "pairing": pairing,
        "verdict": verdict(difference, row.better) if known else UNKNOWN,
    }


def _known(value: float | None) -> float:
    return float("nan") if value is None else value
