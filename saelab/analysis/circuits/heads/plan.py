"""What the report of a circuit is to measure."""

from typing import Literal, NamedTuple

from saelab.analysis.circuits.heads.published import named
from saelab.analysis.circuits.heads.score import FEATURES, STOPPING, method
from saelab.errors import UsageError
from saelab.tasks import METRICS
from saelab.tasks.parts import Given, check_source

TruthKind = Literal["measured", "none"]
TRUTHS: tuple[TruthKind, ...] = ("measured", "none")


class Plan(NamedTuple):
    """What to do.

    task: a built-in task's name, a file, DataFrame or list of prompt pairs, or a `Task`.
    method: of METHODS, or FEATURES.
    n: prompts per repetition (None: the method's default); at most, of prompts that are given.
    repeats: scorings on fresh prompts.
    held_out: prompts for truth and faithfulness; at most, of prompts that are given.
    truth: `measured` (every head of this model resampled by itself) or `none`.
    seed: of every draw.
    seconds: that ACDC and exact patching may take for all scorings together (None: all they need).
    published: a circuit of PUBLISHED to compare with as well, on the model that it was found in.
    """

    task: Given
    method: str
    n: int | None = None
    repeats: int = 3
    held_out: int = 100
    truth: TruthKind = "measured"
    seed: int = 0
    seconds: float | None = None
    published: str | None = None

    def check(self) -> None:
        """Raise UsageError, listing what there is, for an unknown task, method or truth."""
        if self.method != FEATURES:
            method(self.method)
        if self.published is not None:
            self._check_published(self.published)
        check_source(self.task)
        if self.truth not in TRUTHS:
            raise UsageError(f"unknown truth {self.truth!r}: there are {', '.join(TRUTHS)}")
        if self.repeats < 1:
            raise UsageError(
                f"repeats={self.repeats}: at least one is needed, and three for an interval"
            )
        if self.n is not None and self.n < 1:
            raise UsageError(f"n={self.n}: at least one prompt is needed")
        if self.seconds is not None and self.method not in STOPPING:
            raise UsageError(
                f"seconds={self.seconds:g}: {self.method} ends by itself; a budget is for "
                f"{' and '.join(STOPPING)}"
            )
        if self.held_out < 2:
            raise UsageError(f"held_out={self.held_out}: at least two are needed for an interval")

    def _check_published(self, name: str) -> None:
        named(name)
        if isinstance(self.task, str) and self.task in METRICS and self.task != name:
            raise UsageError(f"published={name}: that circuit is of its own task, not {self.task}")
        if self.method == FEATURES:
            raise UsageError(f"published={name}: a circuit of heads, and {FEATURES} is of features")
