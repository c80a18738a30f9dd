"""Numbers of several dictionaries beside each other: each with its interval, and whether the SAE's
differs from a control's.

Shapes: R resamples.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from saelab.evaluation.separation import KNOWS
from saelab.statistics import Estimate, least, verdict
from saelab.statistics.bootstrap import percentiles, resampled, total

Key = tuple[str, str, str]


class Stated(NamedTuple):
    """One number of one dictionary."""

    evaluation: str
    """what it is part of, such as `absorption`"""
    metric: str
    """what it says"""
    better: str
    """`lower`, `higher` or `none`"""
    estimate: Estimate
    """value, interval and null"""
    draws: np.ndarray | None = None
    """[R] the value on resamples, the same ones for every dictionary; None: not known"""
    label: str = ""
    """of what, where there are several"""

    @property
    def key(self) -> Key:
        """What the same number of another dictionary has too."""
        return self.evaluation, self.metric, self.label


def drawn(
    sums: Any, statistic: Callable[[Any], np.ndarray], weights_RG: np.ndarray
) -> tuple[Estimate, np.ndarray | None]:
    """A statistic of sums by document or other unit, as of `statistics.over_documents`, and its
    values on the resamples; of one unit alone there are none."""
    value = float(statistic(total(sums)))
    if weights_RG.shape[1] < 2:
        return Estimate(value), None
    draws_R = statistic(resampled(sums, weights_RG))
    return Estimate(value, *percentiles(draws_R)), draws_R


def table(by_name: Mapping[str, Sequence[Stated]], null: str = "") -> list[dict[str, Any]]:
    """Rows {"evaluation", "metric", "label", "dictionary", "better"} with the fields of an
    estimate; those of controls with the SAE's difference and `verdict` on the SAE. null: the
    dictionary whose value is the null of a number that has none of its own.

    >>> table({"sae": [a], "permuted_decoder": [b]})[1]["verdict"]
    """
    mine = {one.key: one for one in by_name["sae"]}
    chance = {one.key: one.estimate.value for one in by_name.get(null, ())}
    rows = []
    for name, every in by_name.items():
        for one in every:
            estimate = one.estimate
            if estimate.null is None:
                estimate = estimate._replace(null=chance.get(one.key))
            about = {"evaluation": one.evaluation, "metric": one.metric, "label": one.label}
            row = about | {"dictionary": name, "better": one.better, **estimate.as_dict()}
            if name not in ("sae", KNOWS) and one.better != "none" and one.key in mine:
                row |= _against(mine[one.key], one)
            rows.append(row)
    return rows


def _against(mine: Stated, control: Stated) -> dict[str, Any]:
    """The SAE's number less the control's, and what that says of the SAE."""
    change = difference(mine, control)
    said = verdict(change, mine.better) if change.value is not None else None
    return {"difference": change.as_dict(), "least": least(change), "verdict": said}


def difference(mine: Stated, theirs: Stated) -> Estimate:
    """Paired where both are known on the same resamples, else of independent ones: half widths add
    as squares."""
    a, b = mine.estimate, theirs.estimate
    if a.value is None or b.value is None:
        return Estimate(None, null=0.0)
    value = a.value - b.value
    if mine.draws is not None and theirs.draws is not None:
        return Estimate(value, *percentiles(mine.draws - theirs.draws), 0.0)
    if a.low is None or a.high is None or b.low is None or b.high is None:
        return Estimate(value, null=0.0)
    half = float(np.hypot(a.high - a.low, b.high - b.low)) / 2
    return Estimate(value, value - half, value + half, 0.0)


def not_separated(rows: Sequence[Mapping[str, Any]]) -> dict[Key, list[str]]:
    """By evaluation, metric and label the controls that the SAE is not better than."""
    alike: dict[Key, list[str]] = {}
    for row in rows:
        if row.get("verdict", "better") not in ("better", None):
            key = (row["evaluation"], row["metric"], row["label"])
            alike.setdefault(key, []).append(row["dictionary"].replace("_", " "))
    return alike
