"""Prompts from tables: IOI and greater-than files, agreement pairs, and one's own.

Answers are derived from the words: token ids that a file may hold belong to the tokenizer it was
made with.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from saelab.bundled.prompts import YEARS, Drawn, spoken
from saelab.errors import UsageError
from saelab.tasks import own
from saelab.tasks.answers import Metric
from saelab.tasks.reading import Reader, Unfit
from saelab.tasks.records import Row, Table, name_of, rows, where
from saelab.tasks.tokens import METRICS, Task, collected


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
    Layout(frozenset({"clean", "answers"}), "", own.draw),
    Layout(frozenset({"clean", "corrupted", "corrupted_hard"}), "ioi", _ioi),
    Layout(frozenset({"clean", "corrupted", "label"}), "greater-than", _greater_than),
    Layout(
        frozenset({"clean_prefix", "patch_prefix", "clean_answer", "patch_answer", "case"}),
        "agreement",
        _agreement,
    ),
    Layout(frozenset({"clean"}), "", own.draw),
)


class Words(NamedTuple):
    """The prompts of a table, in words."""

    name: str
    """of their task"""
    metric: Metric
    """`probability_difference` where some prompt of one's own has no wrong answer"""
    prompts: list[Drawn]
    """in the order of the table"""
    own: bool
    """whether they are one's own, of which every row is meant to be used"""


class Given(NamedTuple):
    """A task of prompts that were given, and what became of the others."""

    task: Task
    left_out: dict[str, Any]
    """`unusable` pairs in this tokenizer, with an `example`; pairs of `other_lengths`; `repeated`
    ones"""


def _layout(source: Table, row: Row) -> Layout:
    """The layout of a table by its first row: ready-made files have columns of just these names."""
    for layout in LAYOUTS:
        fields = set(row) if layout.task else {own.field_of(name) for name in row}
        if layout.columns <= fields:
            return layout
    known = [f"{one.task or 'own'}: {', '.join(sorted(one.columns))}" for one in LAYOUTS[:-1]]
    raise UsageError(
        f"{where(source)} has the fields {', '.join(map(str, row))}: known layouts are "
        f"{'; '.join(known)}"
    )


def read_words(source: Table, needs: Sequence[str] = ("answers",)) -> Words:
    """The prompts of a file, a DataFrame or a list of mappings, of any tokenizer.

    The fields of one's own are those of `saelab.tasks.own`; `needs`: which of them no row may lack.
    Raises UsageError, with the prompt's number, for what is not one.

    >>> words = read_words([{"clean": "Anna and Ben sat. Ben gave it to", "answers": " Anna"}])
    >>> gifts = build(words.name, model, words.prompts, words.metric)
    """
    table = rows(source)
    layout, prompts = _layout(source, table[0]), []
    for number, row in enumerate(table, start=1):
        if not layout.task and (lacking := own.lacking(row, needs)):
            raise UsageError(f"{where(source)}, prompt {number} {lacking}")
        try:
            prompts.append(layout.draw(row))
        except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
            what = f"one of {layout.task}" if layout.task else f"such as {own.WANTED}"
            problem = f"prompt {number} is not {what}: {error!r}"
            raise UsageError(f"{where(source)}, {problem}") from error
    answered = all(drawn.wrong for drawn in prompts)
    of_own: Metric = "logit_difference" if answered else "probability_difference"
    name = layout.task or name_of(source)
    return Words(name, METRICS.get(layout.task, of_own), prompts, not layout.task)


@contextmanager
def row_of(source: Table, number: int) -> Iterator[None]:
    """While open, what is wrong with a prompt is said with its number."""
    try:
        yield
    except (Unfit, UsageError) as problem:
        raise UsageError(f"{where(source)}, prompt {number}: {problem}") from None


def check(source: Table, model: Any) -> None:
    """Raise UsageError, with its number, for a prompt of one's own that this model's tokenizer does
    not read with answers of one token."""
    words, reader = read_words(source), Reader(model.tokenizer)
    for number, drawn in enumerate(words.prompts if words.own else [], start=1):
        with row_of(source, number):
            reader.encode(drawn._replace(corrupted=""))


def given(
    source: Table, model: Any, n: int | None = None, needs: Sequence[str] = own.PAIR
) -> Given:
    """The task in a table of prompt pairs, as `read` has it, and what it leaves out."""
    words = read_words(source, needs)
    found = collected(words.name, model, words.prompts, n, words.metric)
    if words.own and found.unfit:
        more = f" ({len(found.unfit)} prompts are so)" if len(found.unfit) > 1 else ""
        raise UsageError(f"{where(source)}, {found.unfit[0]}{more}")
    left_out: dict[str, Any] = {
        "unusable": len(found.unfit),
        "other_lengths": found.other_lengths,
        "repeated": found.repeated,
    }
    if found.unfit:
        left_out["example"] = found.unfit[0]
    return Given(found.task, left_out)


def read(source: Table, model: Any, n: int | None = None) -> Task:
    """The task in a file, a DataFrame or a list of prompt pairs: the first n usable pairs of one
    length, or (None) all pairs of the commonest length.

    Of a ready-made file, pairs with answers of several tokens, or twins of unequal length, in this
    model's tokenizer are left out. Raises UsageError for what cannot be read, an unknown layout,
    prompts of one's own that lack a twin or answer or cannot be used, with their number, and when
    fewer than n pairs (or none) can be used.
    """
    return given(source, model, n).task
