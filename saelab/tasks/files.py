"""Ready-made prompts from files: IOI and greater-than tables, agreement pairs, and one's own.

Answers are derived from the words: token ids that a file may hold belong to the tokenizer it was
made with.
"""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from saelab.bundled.prompts import YEARS, Drawn, spoken
from saelab.errors import UsageError
from saelab.tasks.answers import Metric
from saelab.tasks.tokens import METRICS, Task, collect

Row = dict[str, Any]
WANTED = '{"prompt": "...", "answers": [" x"], "attributes": {"name": "value"}}'


def _ioi(row: Row) -> Drawn:
    """The twin names a third person as the giver; the hard twin names the receiver, who is the
    answer."""
    words = [row[column].split() for column in ("clean", "corrupted", "corrupted_hard")]
    changed = [names for names in zip(*words, strict=True) if names[0] != names[1]]
    (giver, _, receiver), *others = changed
    if others:
        raise ValueError("the twin differs in more than one word")
    clean = row["clean"]
    marks = {
        "io": clean.index(receiver) + len(receiver) - 1,
        "s1": clean.index(giver) + len(giver) - 1,
        "s2": clean.rindex(giver) + len(giver) - 1,
    }
    order = "ABB" if marks["io"] < marks["s1"] else "BAB"
    labels = {"io": receiver, "s": giver, "order": order}
    return Drawn(clean, row["corrupted"], spoken([receiver]), spoken([giver]), marks, labels)


def _greater_than(row: Row) -> Drawn:
    clean, start = row["clean"], int(row["label"])
    century = clean.split()[-1]
    marks = {"year": clean.index(century + YEARS[start]) + len(century) + 1}
    labels = {"year": YEARS[start], "century": century}
    answers = (YEARS[start + 1 :], YEARS[: start + 1])
    return Drawn(clean, row["corrupted"], *answers, marks, labels)


def _agreement(row: Row) -> Drawn:
    subject = row["clean_prefix"].split()[1]
    marks = {"subject": len("The ") + len(subject) - 1}
    labels = {"number": row["case"].split("_")[0], "subject": subject}
    texts = (row["clean_prefix"], row["patch_prefix"])
    return Drawn(*texts, (row["clean_answer"],), (row["patch_answer"],), marks, labels)


def _words(given: str | list[str]) -> tuple[str, ...]:
    """The answers of a field: a list, or one alone."""
    words = [given] if isinstance(given, str) else given
    if not all(isinstance(word, str) for word in words):
        raise TypeError("answers are texts")
    return tuple(words)


def _own(row: Row) -> Drawn:
    """One's own prompt; see `read_words`."""
    right = _words(row["answers"] if "answers" in row else row["answer"])
    labels = {str(name): str(value) for name, value in row.get("attributes", {}).items()}
    marks = {str(name): int(at) for name, at in row.get("positions", {}).items()}
    texts = (str(row["prompt"]), str(row.get("twin", "")))
    return Drawn(
        *texts, right, _words(row.get("wrong", [])), marks, labels, str(row.get("group", ""))
    )


class Layout(NamedTuple):
    """A kind of prompt file.

    columns: the fields that tell it.
    task: the name of its task; empty for one's own, which is called as the file is.
    draw: a row as a prompt.
    """

    columns: frozenset[str]
    task: str
    draw: Callable[[Row], Drawn]


LAYOUTS = (
    Layout(frozenset({"prompt"}), "", _own),
    Layout(frozenset({"clean", "corrupted", "corrupted_hard"}), "ioi", _ioi),
    Layout(frozenset({"clean", "corrupted", "label"}), "greater-than", _greater_than),
    Layout(
        frozenset({"clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case"}),
        "agreement",
        _agreement,
    ),
)


class Words(NamedTuple):
    """The prompts of a file, in words.

    name: of their task.
    metric: `probability_difference` where some prompt of one's own has no wrong answer.
    prompts: in the order of the file.
    """

    name: str
    metric: Metric
    prompts: list[Drawn]


def rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header, of a JSON array of objects, or of one object per line.
    Raises UsageError for anything else."""
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            table: list[Row] = list(csv.DictReader(text.splitlines()))
        elif text.lstrip().startswith("["):
            table = json.loads(text)
        else:
            table = [json.loads(line) for line in text.splitlines() if line.strip()]
    except OSError as error:
        raise UsageError(f"cannot read the prompts {path}: {error.strerror}") from error
    except (ValueError, RecursionError, csv.Error) as error:
        raise UsageError(
            f"{path} is neither a CSV table nor JSON, an array or one object per line: {error}"
        ) from error
    if not table or not all(isinstance(row, dict) for row in table):
        raise UsageError(
            f"{path} holds no prompts: a CSV table with a header, or JSON objects, are needed"
        )
    return table


def _layout(path: Path, fields: Mapping[str, Any]) -> Layout:
    layout = next((layout for layout in LAYOUTS if layout.columns <= set(fields)), None)
    if layout is None:
        known = [f"{one.task or 'own'}: {', '.join(sorted(one.columns))}" for one in LAYOUTS]
        raise UsageError(
            f"{path} has the fields {', '.join(map(str, fields))}: known layouts are "
            f"{'; '.join(known)}"
        )
    return layout


def read_words(path: Path) -> Words:
    """The prompts in a file, of any tokenizer.

    One's own are JSON objects with the fields `prompt` and `answers` (or `answer`), and where
    wanted `twin`, `wrong`, `attributes`, `positions` (name: character number), `group`. Raises
    UsageError, with the prompt's number, for what is not one.

    >>> words = read_words(Path("gifts.jsonl"))
    >>> gifts = build(words.name, model, words.prompts, words.metric)
    """
    path = Path(path)
    table = rows(path)
    layout, prompts = _layout(path, table[0]), []
    for number, row in enumerate(table, start=1):
        try:
            prompts.append(layout.draw(row))
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            what = f"one of {layout.task}" if layout.task else f"such as {WANTED}"
            raise UsageError(f"{path}, prompt {number} is not {what}: {error!r}") from error
    answered = all(drawn.wrong for drawn in prompts)
    own: Metric = "logit_difference" if answered else "probability_difference"
    return Words(layout.task or path.stem, METRICS.get(layout.task, own), prompts)


def read(path: Path, model: Any, n: int | None = None) -> Task:
    """The task in a file of prompt pairs: the first n usable pairs of one length, or (None) all
    pairs of the commonest length.

    Pairs with answers of several tokens, or twins of unequal length, in this model's tokenizer are
    left out. Raises UsageError for a file that cannot be read, an unknown layout, and when fewer
    than n pairs (or none) can be used.
    """
    words = read_words(path)
    return collect(words.name, model, words.prompts, n, words.metric)
