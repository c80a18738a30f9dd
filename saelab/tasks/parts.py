"""A task's prompts in parts: some to look for a circuit on, others, held out, to test it on."""

import random
from pathlib import Path
from typing import Any, NamedTuple

from saelab.errors import UsageError
from saelab.tasks import files, records
from saelab.tasks.tokens import METRICS, Task, check_twins, task

# A built-in task's name; a file, a DataFrame or a list of prompts; prompts made by hand.
Given = str | records.Table | Task


class Parts(NamedTuple):
    """Prompts of one task.

    scoring: one set per repetition, none of them among `held_out`.
    held_out: of templates (built-in tasks) or at least prompts that no scoring sees.
    left_out: what became of the other prompts of a table, see `files.Given`; empty of others.
    """

    scoring: list[Task]
    held_out: Task
    left_out: dict[str, Any] = {}  # noqa: RUF012


def name_of(source: Given) -> str:
    """What reports call the task."""
    return source.name if isinstance(source, Task) else records.name_of(source)


def check_source(source: Given) -> None:
    """Raise UsageError for what is no task: neither a known name, nor a file, nor a `Task`."""
    if not isinstance(source, str | Path) or str(source) in METRICS or Path(source).is_file():
        return
    if Path(source).suffix in records.SUFFIXES:
        raise UsageError(f"no file {source}")
    raise UsageError(
        f"unknown task {str(source)!r}: tasks are {', '.join(METRICS)}, or name a file of prompts"
    )


def parts(
    source: Given, model: Any, n: int, n_held_out: int, repeats: int = 1, seed: int = 0
) -> Parts:
    """Sets of n prompts to score on, and n_held_out others.

    A built-in task draws as many as wanted. Of prompts that are given, at most half are held out,
    and the rest is shared out among the repetitions, at most n each, in an order that the seed
    shuffles. Raises UsageError where there are too few, and for prompts without twins.

    >>> scoring, held_out = parts(Path("gifts.jsonl"), model, n=32, n_held_out=100, repeats=3)
    """
    if isinstance(source, str) and source in METRICS:
        drawn = [task(source, model, n=n, seed=seed + number) for number in range(repeats)]
        held_out = task(source, model, n=n_held_out, seed=seed, split="held-out")
        return Parts(drawn, held_out)
    made = isinstance(source, Task)
    given, left_out = (source, {}) if made else files.given(source, model)
    check_twins(given)
    order = random.Random(seed).sample(range(len(given.clean)), len(given.clean))
    n_held_out = min(n_held_out, len(order) // 2)
    each = min(n, (len(order) - n_held_out) // repeats)
    if n_held_out < 2 or each < 1:
        raise UsageError(
            f"task {given.name}: {len(order)} prompts are too few: at least {max(4, 2 * repeats)} "
            f"are needed, half of them to test on, the others for {repeats} scorings"
        )
    rest = order[n_held_out:]
    scoring = [given.part(rest[i * each : (i + 1) * each]) for i in range(repeats)]
    return Parts(scoring, given.part(order[:n_held_out]), left_out)
