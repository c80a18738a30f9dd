"""A paper's claims over a grid: numbers of tokens, widths and learning rates, each method at its
own best rate, three seeds, at the same measured L0.

The rates are multiples of the default one, which falls with the number of tokens and the width; all
are tried with the first seed, and the best trains the others. A method may so win in a row because
of a rate only where its rival's best lies at the grid's edge, which the row's runs show. What is
trained, and how it is scored, is in `cells`.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from saelab import SAE
from saelab.statistics import Estimate, over_seeds

from ..config import Config
from .claims import judge

Measure = Callable[[Sequence[SAE]], Mapping[str, Sequence[float]]]


class Size(NamedTuple):
    """How much is measured."""

    tokens: tuple[int, ...] = (102_400, 307_200, 921_600)
    """numbers of training tokens, ascending"""
    features: tuple[int, ...] = (256, 512, 1024)
    """widths, ascending"""
    times: tuple[float, ...] = (0.5, 1.0, 2.0)
    """learning rates, as multiples of the default one"""
    n_seeds: int = 3
    """seeds at the best rate"""
    batch: int = 1024
    """tokens per step"""
    calibration: int = 50_000
    """training tokens that set the shares between levels"""
    apart: int = 20_000
    """held-out tokens that choose the rate; as many others are scored"""
    captured: int = 1_150_000
    """tokens of the cache"""
    held_out: int = 50_688
    """of them held out: 198 contexts"""


NAMES = {
    "fvu": "FVU",
    "dead": "dead share",
    "loss": "loss added",
    "ap": "average precision",
    "steer": "nats steered",
    "f1": "F1 per axis",
}  # of numbers, as claims call them
QUICK = Size((8_192, 16_384), (64, 128), (1.0,), 2, 512, 4_096, 1_000, 50_000, 3_000)


class Question(NamedTuple):
    """A claim that one number of a method lies below (or above) another's."""

    method: str
    """the paper's"""
    over: str
    """what it is compared with; empty: with `bound` itself"""
    number: str
    """fvu, dead, or one of the study's own measures"""
    theirs: str
    """what the paper says"""
    bound: float = 0.0
    """of the difference, or of the number itself"""
    above: bool = False
    """whether it is claimed to lie above the bound, not below"""

    @property
    def words(self) -> str:
        """What is claimed."""
        side = "above" if self.above else "below"
        number = NAMES.get(self.number, self.number)
        other = f"that of {self.over}" if self.over else f"{self.bound:.3g}"
        return f"{self.method}: {number} {side} {other}"


class Study(NamedTuple):
    """What a paper compares at one place."""

    where: str
    """in words"""
    base: Config
    """the cache, hook and k that all methods share"""
    methods: Callable[[Config], dict[str, Config]]
    """the methods' configurations at a base's tokens, width, batch and calibration"""
    questions: tuple[Question, ...]
    """what is asked of every cell"""
    more: Measure = lambda saes: {}
    """numbers beside fvu, l0 and dead, by their names"""


class Row(NamedTuple):
    """A question's answers at one width."""

    where: str
    """the study"""
    question: Question
    """what was asked"""
    features: int
    """the width"""
    points: dict[int, tuple[Estimate, bool | None]]
    """by number of tokens: over seeds the FVU's ratio less 1, another number's difference, or the
    number itself, and whether the claim holds there"""

    @property
    def verdict(self) -> str:
        """The answer in words."""
        return verdict({n: holds for n, (_, holds) in self.points.items()})

    def as_dict(self) -> dict[str, Any]:
        """A row of the `reproduce_grid` document."""
        points = [
            {"tokens": n, **value.as_dict(), "holds": holds}
            for n, (value, holds) in self.points.items()
        ]
        what = {name: getattr(self.question, name) for name in ("method", "over", "number")}
        said = {"claim": self.question.words, "theirs": self.question.theirs}
        here = {"where": self.where, "features": self.features, "answer": self.verdict}
        return {**said, **what, **here, "points": points}


def verdict(holds: Mapping[int, bool | None]) -> str:
    """What to say of a claim that holds (True), does not, or is undecided (None) at ascending
    numbers of tokens.

    >>> verdict({100: None, 300: True, 900: True})
    'holds from 300 tokens on'
    """
    numbers = list(holds)
    last = holds[numbers[-1]]
    if last is None:
        if True not in holds.values() and False not in holds.values():
            return "undecided"
        return f"undecided at {numbers[-1]:,} tokens"
    said = "holds" if last else "does not hold"
    first = numbers[-1]
    for number in reversed(numbers):
        if holds[number] is not last:
            return f"{said} from {first:,} tokens on"
        first = number
    return said


def rows(study: Study, runs: Sequence[Mapping[str, Any]]) -> list[Row]:
    """The study's questions, answered at each width by its runs at their best rate."""
    mine = [run for run in runs if run["where"] == study.where]
    widths = sorted({run["features"] for run in mine})
    return [
        Row(study.where, question, width, _points(question, _of(mine, features=width)))
        for question in study.questions
        for width in widths
    ]


def _points(
    question: Question, runs: Sequence[Mapping[str, Any]]
) -> dict[int, tuple[Estimate, bool | None]]:
    """A question's answers by number of tokens."""
    found = {}
    for n_tokens in sorted({run["tokens"] for run in runs}):
        here = _of(runs, tokens=n_tokens)
        value = difference(question.number, *(
            at_best(_of(here, method=name)) for name in (question.method, question.over) if name
        ))  # fmt: skip
        bound = {"above" if question.above else "below": question.bound}
        found[n_tokens] = value, judge(value, **bound)
    return found


def difference(number: str, mine: Sequence[Mapping], theirs: Sequence[Mapping] = ()) -> Estimate:
    """Over the seeds that both have: the FVU's ratio less 1, another number's difference; the
    number itself without a rival."""
    if not theirs:
        return over_seeds([run[number] for run in mine])
    other = {run["seed"]: run[number] for run in theirs}
    pairs = [(run[number], other[run["seed"]]) for run in mine if run["seed"] in other]
    if number == "fvu":
        return over_seeds([a / b - 1 for a, b in pairs], null=0.0)
    return over_seeds([a - b for a, b in pairs], null=0.0)


def at_best(runs: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Of one method's runs in a cell those at the rate that was chosen, which most seeds have."""
    counts = {run["times"]: len(_of(runs, times=run["times"])) for run in runs}
    return _of(runs, times=max(counts, key=lambda times: counts[times]))


def _of(runs: Sequence[Mapping[str, Any]], **fields: Any) -> list[Mapping[str, Any]]:
    """Those of the runs that have these fields."""
    return [run for run in runs if all(run[name] == value for name, value in fields.items())]
