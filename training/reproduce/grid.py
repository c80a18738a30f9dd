"""A paper's claims over a grid: numbers of tokens, widths and learning rates, each method at its
own best rate, three seeds, at the same measured L0.

The rates are multiples of the default one, which falls with the number of tokens and the width; all
are tried with the first seed, and the best trains the others. Held-out documents are split: the
first part sets inference levels so that k pairs per token pass, and chooses the rate; the second
alone is scored. A method may so win in a row because of a rate only where its rival's best lies at
the grid's edge, which the row's runs show. Runs are kept in the work folder: killed and started
again, a grid goes on.

Shapes: S seeds, N tokens.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from torch import Tensor

from saelab import SAE
from saelab.activations import Cache
from saelab.statistics import Estimate, over_seeds

from .. import recipes
from ..config import Config
from . import data
from .claims import Settings, judge
from .compare import HOOK
from .measure import at_l0, quality, tokens

Measure = Callable[[Sequence[SAE]], Sequence[float]]


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
    """held-out tokens that set the levels' size, and choose the rate; as many others are scored"""
    captured: int = 1_150_000
    """tokens of the cache"""
    held_out: int = 50_688
    """of them held out: 198 contexts"""


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
        if not self.over:
            return f"{self.method}: {self.number} {side} {self.bound:g}"
        return f"{self.method}: {self.number} {side} that of {self.over}"


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
    more: Mapping[str, Measure] = {}
    """numbers beside fvu, l0 and dead"""


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


def language_base(settings: Settings, recipe: str, size: Size, gradients: bool = False) -> Config:
    """A shipped recipe on the bundled model's cache, which papers share."""
    asked = settings, "stdlib", [HOOK], size.captured, gradients, size.held_out
    cache = data.cache(*asked)
    return replace(recipes.read(recipe), cache=str(cache), hook=HOOK)


def measured(settings: Settings, study: Study, size: Size) -> list[dict[str, Any]]:
    """The runs of a study, a mapping each: where, tokens, features, method, times, lr, seed, and
    the numbers."""
    rows = []
    for n_tokens in size.tokens:
        for n_features in size.features:
            base = replace(
                study.base,
                tokens=n_tokens,
                features=n_features,
                batch=size.batch,
                calibration=size.calibration,
            )
            at = {"where": study.where, "tokens": n_tokens, "features": n_features}
            rows += [at | row for row in _cell(settings, study, study.methods(base), size)]
    return rows


def _cell(
    settings: Settings, study: Study, methods: Mapping[str, Config], size: Size
) -> Iterator[dict[str, Any]]:
    """The runs at one number of tokens and width."""
    hook = Cache(study.base.cache).resolve(study.base.hook or "")
    held_out = tokens(study.base.cache, hook, "held_out", 2 * size.apart)
    apart_ND, scored_ND = held_out[: size.apart], held_out[size.apart :]
    width, first = held_out.shape[1], settings.seed
    asked = {
        (name, times, first): _at(config, times, first, width)
        for name, config in methods.items()
        for times in size.times
    }
    saes = _trained(settings, asked, apart_ND)
    for name, config in methods.items():
        best = min(
            size.times, key=lambda times, name=name: quality(saes[name, times, first], apart_ND).fvu
        )
        for seed in range(first + 1, first + size.n_seeds):
            asked[name, best, seed] = _at(config, best, seed, width)
    saes |= _trained(settings, {key: c for key, c in asked.items() if key not in saes}, apart_ND)
    more = {what: of(list(saes.values())) for what, of in study.more.items()}
    for i, ((name, times, seed), sae) in enumerate(saes.items()):
        numbers = quality(sae, scored_ND)._asdict()
        numbers |= {what: float(values[i]) for what, values in more.items()}
        lr = asked[name, times, seed].lr
        yield {"method": name, "times": times, "lr": lr, "seed": seed, **numbers}


def _at(config: Config, times: float, seed: int, width: int) -> Config:
    """A configuration at a multiple of its default rate."""
    default = replace(config, lr=None).learning_rate(width)
    return replace(config, lr=float(f"{times * default:.4g}"), seed=seed)


def _trained(
    settings: Settings, asked: Mapping[tuple, Config], apart_ND: Tensor
) -> dict[tuple, SAE]:
    """The SAEs of configurations, their levels reset on tokens [N, D] kept apart."""
    folders = data.runs(settings, list(asked.values()))
    return {
        key: at_l0(data.sae(settings, folder), apart_ND, asked[key].k)
        for key, folder in zip(asked, folders, strict=True)
    }


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
