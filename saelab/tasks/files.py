"""Ready-made prompt pairs from files, as tasks: IOI and greater-than tables, agreement pairs.

Answers are derived from the words: token ids that a file may hold belong to the tokenizer it was
made with.
"""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from saelab.errors import UsageError
from saelab.tasks.drawing import Drawn
from saelab.tasks.task import METRICS, Task, collect

Row = dict[str, str]


def _ioi(row: Row) -> Drawn:
    """The twin names a third person as the giver; the hard twin names the receiver, who is the
    answer."""
    words = [row[column].split() for column in ("clean", "corrupted", "corrupted_hard")]
    changed = [names for names in zip(*words, strict=True) if names[0] != names[1]]
    (giver, _, receiver), *others = changed
    if others:
        raise ValueError("the twin differs in more than one word")
    clean = row["clean"]
    starts = {"io": clean.index(receiver), "s1": clean.index(giver), "s2": clean.rindex(giver)}
    marks = {
        name: start + len(receiver if name == "io" else giver) - 1 for name, start in starts.items()
    }
    order = "ABB" if marks["io"] < marks["s1"] else "BAB"
    labels = {"io": receiver, "s": giver, "order": order}
    return Drawn(clean, row["corrupted"], (f" {receiver}",), (f" {giver}",), marks, labels)


def _greater_than(row: Row) -> Drawn:
    years, start = [f"{year:02d}" for year in range(100)], int(row["label"])
    century = row["clean"].split()[-1]
    marks = {"year": row["clean"].index(century + years[start]) + len(century) + 1}
    labels = {"year": years[start], "century": century}
    return Drawn(
        row["clean"],
        row["corrupted"],
        tuple(years[start + 1 :]),
        tuple(years[: start + 1]),
        marks,
        labels,
    )


def _agreement(row: Row) -> Drawn:
    subject = row["clean_prefix"].split()[1]
    marks = {"subject": len("The ") + len(subject) - 1}
    labels = {"number": row["case"].split("_")[0], "subject": subject}
    return Drawn(
        row["clean_prefix"],
        row["patch_prefix"],
        (row["clean_answer"],),
        (row["patch_answer"],),
        marks,
        labels,
    )


class Layout(NamedTuple):
    """columns: the fields that tell a file of this layout; task: its name; draw: a row as a prompt
    pair."""

    columns: frozenset[str]
    task: str
    draw: Callable[[Row], Drawn]


LAYOUTS = (
    Layout(frozenset({"clean", "corrupted", "corrupted_hard"}), "ioi", _ioi),
    Layout(frozenset({"clean", "corrupted", "label"}), "greater-than", _greater_than),
    Layout(
        frozenset({"clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case"}),
        "agreement",
        _agreement,
    ),
)


def rows(path: Path) -> list[Row]:
    """The rows of a CSV file with a header, or of a file of one JSON object per line. Raises
    UsageError for anything else."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            found = (
                list(csv.DictReader(file))
                if path.suffix == ".csv"
                else [json.loads(line) for line in file if line.strip()]
            )
    except OSError as error:
        raise UsageError(f"cannot read the prompts {path}: {error.strerror}") from error
    except ValueError as error:
        raise UsageError(
            f"{path} is neither a CSV table nor one JSON object per line: {error}"
        ) from error
    if not found or not all(isinstance(row, dict) for row in found):
        raise UsageError(
            f"{path} holds no prompts: a CSV table with a header, or one JSON object per line, is needed"
        )
    return found


def _drawn(path: Path, layout: Layout, found: list[Row]) -> list[Drawn]:
    pairs = []
    for number, row in enumerate(found, start=1):
        try:
            pairs.append(layout.draw(row))
        except (ValueError, IndexError, KeyError, AttributeError) as error:
            raise UsageError(
                f"{path}, prompt {number} is not one of {layout.task}: {error}"
            ) from error
    return pairs


def read(path: Path, model: Any, n: int | None = None) -> Task:
    """The task in a prompt file: the first n usable pairs of one length, or (None) all pairs of the
    commonest length.

    Pairs with answers of several tokens, or twins of unequal length, in this model's tokenizer are
    left out. Raises UsageError for a file that cannot be read, an unknown layout, and when fewer
    than n pairs (or none) can be used.
    """
    path = Path(path)
    found = rows(path)
    layout = next((layout for layout in LAYOUTS if layout.columns <= set(found[0])), None)
    if layout is None:
        known = "; ".join(
            f"{layout.task}: {', '.join(sorted(layout.columns))}" for layout in LAYOUTS
        )
        raise UsageError(
            f"{path} has the fields {', '.join(map(str, found[0]))}: known layouts are {known}"
        )
    return collect(layout.task, model, _drawn(path, layout, found), n, METRICS[layout.task])
