"""A task: prompts in tokens with their answers, labels and positions, and the number that says how
well a model does it.

Shapes: P prompts, T positions, V vocabulary, A right answers, W wrong answers.
"""

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saelab.bundled.prompts import Drawn
from saelab.errors import UsageError
from saelab.tasks import answers
from saelab.tasks.answers import Metric
from saelab.tasks.drawing import GENERATORS
from saelab.tasks.reading import Encoded, Reader, Unfit

METRICS: dict[str, Metric] = {
    "ioi": "logit_difference",
    "greater-than": "probability_difference",
    "docstring": "logit_difference",
    "induction": "logit_difference",
    "agreement": "logit_difference",
}
DRAWS = 60  # per prompt wanted, before a tokenizer is found unfit for a task
TWINS = "a circuit is what changes between a prompt and its twin"


class Task(NamedTuple):
    """Prompts of one task.

    name: what errors and reports call it.
    clean: [P, T] int64 token ids, beginning-of-text in front where the tokenizer has one; filled up
        on the right with 0 where prompts differ in length.
    corrupted: [P, T], the twins; [0, T] of prompts without.
    right: [P, A] int64, filled up with -1.
    wrong: [P, W] int64, likewise.
    metric: see `measure`.
    positions: name -> [P] int64; `end`, the prompt's last token, is always there.
    labels: attribute -> its value in each prompt.
    groups: P names; prompts written as counterfactuals of each other share one.
    """

    name: str
    clean: Tensor
    corrupted: Tensor
    right: Tensor
    wrong: Tensor
    metric: Metric
    positions: dict[str, Tensor]
    labels: dict[str, list[str]]
    groups: Sequence[str] = ()

    def part(self, rows: slice | Sequence[int]) -> "Task":
        """The same task with some of its prompts."""
        numbers = range(len(self.clean))[rows] if isinstance(rows, slice) else rows
        at = rows if isinstance(rows, slice) else torch.as_tensor(rows, dtype=torch.int64)
        return self._replace(
            clean=self.clean[at],
            corrupted=self.corrupted[at] if len(self.corrupted) else self.corrupted,
            right=self.right[at],
            wrong=self.wrong[at],
            positions={name: where[at] for name, where in self.positions.items()},
            labels={name: [values[i] for i in numbers] for name, values in self.labels.items()},
            groups=[self.groups[i] for i in numbers] if self.groups else (),
        )


def measure(task: Task, logits: Tensor) -> Tensor:
    """The task's metric for each prompt [P], from logits [P, T, V] or [P, V]; see
    `saelab.tasks.answers.measure`."""
    return answers.measure(task.metric, task.right, task.wrong, logits)


def check_twins(task: Task) -> None:
    """Raise UsageError unless every prompt has a twin, and wrong answers where they are compared
    with the right ones: what circuits are found by."""
    if len(task.corrupted) != len(task.clean):
        raise UsageError(f"task {task.name}: its prompts have no twins: {TWINS}")
    answered = (task.wrong >= 0).any(1) if task.wrong.shape[1] else task.wrong.any(1)
    if task.metric == "logit_difference" and not answered.all():
        row = int((~answered).nonzero()[0]) + 1
        raise UsageError(
            f"task {task.name}: prompt {row} has no wrong answer: a logit difference needs one; "
            "give it, or take the metric probability_difference"
        )


def _padded(rows: list[list[int]], fill: int) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [fill] * (longest - len(row)) for row in rows], dtype=torch.int64)


def _stack(name: str, metric: Metric, rows: list[Encoded]) -> Task:
    first = rows[0]
    return Task(
        name,
        clean=_padded([row.clean for row in rows], 0),
        corrupted=_padded([row.corrupted for row in rows if row.corrupted] or [[]], 0),
        right=_padded([row.right for row in rows], -1),
        wrong=_padded([row.wrong for row in rows], -1),
        metric=metric,
        positions={at: torch.tensor([row.positions[at] for row in rows]) for at in first.positions},
        labels={key: [row.drawn.labels[key] for row in rows] for key in first.drawn.labels},
        groups=[row.drawn.group for row in rows],
    )


def _check_alike(name: str, prompts: Sequence[Drawn]) -> None:
    """Raise UsageError unless all have a twin or none, and the same labels and marks."""
    if not prompts:
        raise UsageError(f"task {name}: no prompts: give at least two per attribute value")
    for number, drawn in enumerate(prompts, start=1):
        if bool(drawn.corrupted) != bool(prompts[0].corrupted):
            raise UsageError(f"task {name}: prompt {number}: all have a twin, or none has: {TWINS}")
        for what, key in (("attributes", "labels"), ("positions", "marks")):
            has, wants = (sorted(getattr(one, key)) for one in (drawn, prompts[0]))
            if has != wants:
                raise UsageError(
                    f"task {name}: prompt {number}: every prompt has the same {what}: {wants}, "
                    f"but {drawn.clean!r} has {has}"
                )


def build(
    name: str, model: Any, prompts: Iterable[Drawn], metric: Metric = "logit_difference"
) -> Task:
    """The task made of exactly these prompts; any `model` with a `tokenizer`.

    Prompts with twins must all have the same number of tokens, others are filled up on the right.
    Raises UsageError, with the prompt's number, for twins of unequal length, answers of several
    tokens in place, and labels or positions that the first prompt has not.

    >>> pair = Drawn("Anna and Ben sat. Ben gave it to", "Anna and Ben sat. Tom gave it to",
    ...              (" Anna",), (" Ben",))
    >>> task = build("gifts", model, [pair])
    """
    prompts = list(prompts)
    _check_alike(name, prompts)
    reader, rows = Reader(model.tokenizer), []
    for number, drawn in enumerate(prompts, start=1):
        try:
            rows.append(reader.encode(drawn))
        except Unfit as problem:
            raise UsageError(f"task {name}: prompt {number}: {problem}") from None
    lengths = Counter(len(row.clean) for row in rows)
    if rows[0].corrupted and len(lengths) != 1:
        counts = ", ".join(f"{n} of {length} tokens" for length, n in sorted(lengths.items()))
        raise UsageError(
            f"task {name}: prompts must all have the same number of tokens, and these are {counts}"
        )
    return _stack(name, metric, rows)


class Collected(NamedTuple):
    """Pairs of one length, and what became of the others."""

    task: Task
    unfit: list[str]
    """for each pair that this tokenizer does not read as a task needs it, its number and why"""
    other_lengths: int
    """pairs of another length"""
    repeated: int
    """pairs that came before"""


def collected(
    name: str, model: Any, pairs: Iterable[Drawn], n: int | None, metric: Metric
) -> Collected:
    """What `collect` gives, and what it leaves out."""
    reader, seen = Reader(model.tokenizer), set()
    by_length: dict[int, list[Encoded]] = {}
    unfit: list[str] = []
    repeated = 0
    most: list[Encoded] = []
    for number, pair in enumerate(pairs, start=1):
        try:
            row = reader.encode(pair)
        except Unfit as problem:
            unfit.append(f"prompt {number}: {problem}")
            continue
        if (pair.clean, pair.right) in seen:
            repeated += 1
            continue
        seen.add((pair.clean, pair.right))
        same = by_length.setdefault(len(row.clean), [])
        same.append(row)
        if len(same) > len(most):
            most = same
        if len(most) == n:
            break
    if not most or len(most) < (n or 1):
        reasons = f"; {len(unfit)} cannot be used, for example: {unfit[0]}" if unfit else ""
        raise UsageError(
            f"task {name}: {n or 1} prompts of one length were wanted and this tokenizer gives "
            f"{len(most)}{reasons}"
        )
    others = sum(map(len, by_length.values())) - len(most)
    return Collected(_stack(name, metric, most), unfit, others, repeated)


def collect(
    name: str,
    model: Any,
    pairs: Iterable[Drawn],
    n: int | None,
    metric: Metric = "logit_difference",
) -> Task:
    """The first n usable pairs of one length, or (n None) all of the commonest length; a clean
    prompt is taken once.

    Raises UsageError, saying what was wrong with the others, when `pairs` ends before there are n
    (or any) of one length.
    """
    return collected(name, model, pairs, n, metric).task


def task(
    name: str,
    model: Any,
    n: int = 200,
    seed: int = 0,
    split: Literal["train", "held-out"] = "train",
) -> Task:
    """Draw n prompt pairs of the task `name` (a key of METRICS) for a model with a
    tokenizer.

    split: which templates (agreement: which subjects); the bundled model never saw the held-out
    ones. Raises UsageError for an unknown task or split, and for a tokenizer that does not read the
    task's words as single tokens.

    >>> model = models.load("bundled")
    >>> task("ioi", model, n=100, split="held-out").clean.shape  # [P, T]
    """
    if name not in GENERATORS:
        raise UsageError(f"unknown task {name!r}: tasks are {', '.join(GENERATORS)}")
    if split not in ("train", "held-out") or n < 1:
        raise UsageError(
            f"n={n}, split={split!r}: n must be at least 1, and split `train` or `held-out`"
        )
    rng = random.Random(f"{name}/{split}/{seed}")
    pairs = (GENERATORS[name](rng, split == "held-out") for _ in range(DRAWS * n))
    return collect(name, model, pairs, n, METRICS[name])
