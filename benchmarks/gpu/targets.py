"""What is wanted of a card beside what a check measured."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from benchmarks.gpu.correct import WRONG

Stages = Mapping[str, Mapping[str, Any]]  # the rows of each stage
STEP_MS = {"H100": 12.0, "H200": 10.0}  # a full exact step at big
MILLION = "D=2304 F=1048576 moments bfloat16"


class Target(NamedTuple):
    """One wish, and how it went; measured None: nobody knows."""

    what: str
    most: float | None
    measured: float | None

    @property
    def met(self) -> bool | None:
        """None where either is not known."""
        if self.most is None or self.measured is None:
            return None
        return self.measured <= self.most


def targets(stages: Stages, card: str | None) -> list[Target]:
    """Every wish; a stage or a row that is missing leaves its number unknown.

    >>> targets({"correct": {"a form": {"pairs wrong": 0, "of": 12}}}, "NVIDIA H100")[0].met
    True
    """
    step = stages.get("step", {})
    product, full = step.get("big product fp16, ms"), number(step.get("big full step, ms"))
    best = least(row.get("ms") for row in stages.get("peers", {}).values() if isinstance(row, dict))
    ms = next((most for name, most in STEP_MS.items() if name in str(card)), None)
    peak = step.get("big peak of a step, share of [B, F] float32")
    return [
        Target("pairs that are wrong, all forms", 0, of_rows(sum, stages, "correct", WRONG)),
        Target("full step at big, ms", ms, full),
        Target("full step at big, of the best peer's", 0.5, full and best and full / best),
        Target(
            "choose at big, ms: 1.6 products + 1.5",
            product and 1.6 * product + 1.5,
            number(step.get("big choose, ms")),
        ),
        Target("peak of a step beyond what it keeps, of [B, F] float32", 0.25, number(peak)),
        Target("synchronisations of a step", 10, of_rows(max, stages, "syncs", "syncs")),
        Target(
            f"{MILLION}: peak, GiB",
            78,
            number(stages.get("memory", {}).get(MILLION, {}).get("peak, GiB")),
        ),
        Target(
            "a short run's first losses beside the CPU's, relative",
            stages.get("short_run", {}).get(LOSSES, {}).get("allowed"),
            number(stages.get("short_run", {}).get(LOSSES, {}).get("value")),
        ),
    ]


LOSSES = "largest relative difference at first"


def number(value: Any) -> float | None:
    """A number, or None for what stands where there should be one."""
    return value if isinstance(value, int | float) and not isinstance(value, bool) else None


def least(values: Any) -> float | None:
    """The least of those that are numbers."""
    return min((value for value in values if number(value) is not None), default=None)


def of_rows(total: Callable, stages: Stages, stage: str, field: str) -> float | None:
    """A total over the rows of a stage that have a field; None if none has, or one failed."""
    rows = [row for row in stages.get(stage, {}).values() if isinstance(row, dict)]
    values = [row[field] for row in rows if field in row]
    return total(values) if values and not any("failed" in row for row in rows) else None
