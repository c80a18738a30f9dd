"""A circuit task: clean prompts, their corrupted twins, the answers, and the number that says how
well a model does it.

Shapes: P prompts, T positions, V vocabulary, A right answers, W wrong answers.
"""

import random
from collections import Counter
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError
from saelab.tasks import answers
from saelab.tasks.answers import Metric
from saelab.tasks.drawing import GENERATORS, Drawn

METRICS: dict[str, Metric] = {
    "ioi": "logit_difference",
    "greater-than": "probability_difference",
    "docstring": "logit_difference",
    "induction": "logit_difference",
    "agreement": "logit_difference",
}
DRAWS = 60  # per prompt wanted, before a tokenizer is found unfit for a task


class Task(NamedTuple):
    """Prompts of one task, all of one length, read at the last position.

    clean, corrupted: [P, T] int64 token ids, beginning-of-sequence in front where the tokenizer has
    one. right: [P, A] and wrong: [P, W] int64, filled up with -1. metric: see `measure`. positions:
    name -> [P] int64 (`end` is T - 1). labels: attribute -> its value in each prompt.
    """

    name: str
    clean: Tensor
    corrupted: Tensor
    right: Tensor
    wrong: Tensor
    metric: Metric
    positions: dict[str, Tensor]
    labels: dict[str, list[str]]

    def part(self, rows: slice) -> "Task":
        """The same task with some of its prompts."""
        labels = {name: values[rows] for name, values in self.labels.items()}
        positions = {name: where[rows] for name, where in self.positions.items()}
        tensors = {
            name: getattr(self, name)[rows] for name in ("clean", "corrupted", "right", "wrong")
        }
        return self._replace(**tensors, positions=positions, labels=labels)


class _Encoded(NamedTuple):
    """One prompt pair in tokens; problem says why it cannot be used, if so."""

    drawn: Drawn
    clean: list[int]
    corrupted: list[int]
    right: list[int]
    wrong: list[int]
    positions: dict[str, int]
    problem: str = ""


def measure(task: Task, logits: Tensor) -> Tensor:
    """The task's metric for each prompt [P], from logits [P, T, V] or [P, V]; see
    `saelab.tasks.answers.measure`."""
    return answers.measure(task.metric, task.right, task.wrong, logits)


class _Reader:
    """A tokenizer that remembers the words it has read; `bos` is put before each text."""

    def __init__(self, tokenizer: Any):
        self.tokenizer, self.words = tokenizer, {}
        self.bos = [] if tokenizer.bos_token_id is None else [tokenizer.bos_token_id]

    def text(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids and the characters [first, last + 1) that each stands for."""
        read = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        return self.bos + read["input_ids"], [(0, 0)] * len(self.bos) + read["offset_mapping"]

    def word(self, word: str) -> list[int]:
        """The answer's token ids."""
        if word not in self.words:
            self.words[word] = self.tokenizer(word, add_special_tokens=False)["input_ids"]
        return self.words[word]

    def encode(self, drawn: Drawn) -> _Encoded:
        """The pair in tokens, with the reason why it cannot be used, if there is one."""
        (clean, spans), (corrupted, _) = self.text(drawn.clean), self.text(drawn.corrupted)
        marks = drawn.marks.items()
        positions = {
            name: next(i for i, (a, b) in enumerate(spans) if a <= mark < b) for name, mark in marks
        }
        coded = [self.word(word) for word in (*drawn.right, *drawn.wrong)]
        right, wrong = (
            [self.word(word)[0] for word in words] for words in (drawn.right, drawn.wrong)
        )
        encoded = _Encoded(
            drawn, clean, corrupted, right, wrong, {**positions, "end": len(clean) - 1}
        )
        long = [
            (w, len(ids))
            for w, ids in zip((*drawn.right, *drawn.wrong), coded, strict=True)
            if len(ids) != 1
        ]
        if long:
            return encoded._replace(
                problem=f"the answer {long[0][0]!r} is {long[0][1]} tokens, not one"
            )
        if len(clean) != len(corrupted):
            return encoded._replace(
                problem=f"{drawn.clean!r} has {len(clean)} tokens, its twin {len(corrupted)}"
            )
        if self.text(drawn.clean + drawn.right[0])[0] != clean + right[:1]:
            return encoded._replace(
                problem=f"the answer {drawn.right[0]!r} is not one token after {drawn.clean!r}"
            )
        return encoded


def _padded(rows: list[list[int]]) -> Tensor:
    longest = max(map(len, rows))
    return torch.tensor([row + [-1] * (longest - len(row)) for row in rows])


def _stack(name: str, metric: Metric, rows: list[_Encoded]) -> Task:
    clean_PT, corrupted_PT = (
        torch.tensor([row.clean for row in rows]),
        torch.tensor([row.corrupted for row in rows]),
    )
    positions = {
        mark: torch.tensor([row.positions[mark] for row in rows]) for mark in rows[0].positions
    }
    labels = {label: [row.drawn.labels[label] for row in rows] for label in rows[0].drawn.labels}
    right_PA, wrong_PW = _padded([row.right for row in rows]), _padded([row.wrong for row in rows])
    return Task(name, clean_PT, corrupted_PT, right_PA, wrong_PW, metric, positions, labels)


def build(
    name: str, model: Any, pairs: Iterable[Drawn], metric: Metric = "logit_difference"
) -> Task:
    """The task made of exactly these pairs. Raises UsageError for unequal lengths and for answers
    of several tokens."""
    reader = _Reader(model.tokenizer)
    rows = [reader.encode(pair) for pair in pairs]
    if problem := next((row.problem for row in rows if row.problem), None):
        raise UsageError(f"task {name}: {problem}")
    lengths = Counter(len(row.clean) for row in rows)
    if len(lengths) != 1:
        counts = (
            ", ".join(f"{n} of {length} tokens" for length, n in sorted(lengths.items())) or "none"
        )
        raise UsageError(
            f"task {name}: prompts must all have the same number of tokens, and these are {counts}"
        )
    return _stack(name, metric, rows)


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
    reader, seen = _Reader(model.tokenizer), set()
    by_length: dict[int, list[_Encoded]] = {}
    problems: Counter[str] = Counter()
    for pair in pairs:
        row = reader.encode(pair)
        same = by_length.setdefault(len(row.clean), [])
        if row.problem:
            problems[row.problem] += 1
        elif (pair.clean, pair.right) not in seen:
            seen.add((pair.clean, pair.right))
            same.append(row)
            if len(same) == n:
                return _stack(name, metric, same)
    most = max(by_length.values(), key=len, default=[])
    if n is None and most:
        return _stack(name, metric, most)
    reasons = (
        f"; {problems.total()} cannot be used, for example: {problems.most_common(1)[0][0]}"
        if problems
        else ""
    )
    raise UsageError(
        f"task {name}: {n or 1} prompts of one length were wanted and this tokenizer gives {len(most)}{reasons}"
    )


def task(
    name: str,
    model: Any,
    n: int = 200,
    seed: int = 0,
    split: Literal["train", "held-out"] = "train",
) -> Task:
    """Draw n prompt pairs of the task `name` (a key of METRICS) for a model: any bridge with a
    tokenizer.

    split: which templates (agreement: which subjects); the bundled model never saw the held-out
    ones. Raises UsageError for an unknown task or split, and for a tokenizer that does not read the
    task's words as single tokens.
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
