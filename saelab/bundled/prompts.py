"""Prompts in words: one builder per task, from the words chosen for it, and the bundled model's
own.

How a prompt's words are chosen differs between a training text, a circuit's twins and a labelled
set; the text, the answers and the places that follow from those words do not.
"""

import random
import string
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

from saelab.bundled import templates

YEARS = tuple(f"{year:02d}" for year in range(100))
NOTHING: Mapping[str, int] = MappingProxyType({})


class Drawn(NamedTuple):
    """A prompt in words.

    clean: the text, ending just before the answer.
    corrupted: its twin, without what the answer depends on; empty where a prompt has none.
    right: the answers that the metric compares, leading space included.
    wrong: the answers they are compared with.
    marks: name of a position -> index in `clean` of a character of the word that stands there.
    labels: values of the attributes that this prompt was drawn with.
    group: prompts written as counterfactuals of each other share it.
    """

    clean: str
    corrupted: str
    right: tuple[str, ...]
    wrong: tuple[str, ...]
    marks: Mapping[str, int] = NOTHING
    labels: Mapping[str, str] = MappingProxyType({})
    group: str = ""


def fill(template: str, **words: str) -> tuple[str, dict[str, int]]:
    """The text, and the number of the last character of each field."""
    text, last = "", {}
    for literal, field, *_ in string.Formatter().parse(template):
        text += literal
        if field:
            text += words[field]
            last[field] = len(text) - 1
    return text, last


def spoken(words: Sequence[str]) -> tuple[str, ...]:
    """Words as they stand in a text, a space before each."""
    return tuple(f" {word}" for word in words)


def ioi(index: int, first: str, second: str, giver: str, place: str, thing: str) -> Drawn:
    """Two people, one of whom gives: the other receives."""
    words = {"A": first, "B": second, "S": giver, "place": place, "object": thing}
    text, last = fill(templates.IOI[index], **words)
    receiver = second if giver == first else first
    at = {first: last["A"], second: last["B"]}
    marks = {"io": at[receiver], "s1": at[giver], "s2": last["S"]}
    order = "ABB" if receiver == first else "BAB"
    labels = {"io": receiver, "s": giver, "order": order, "place": place, "object": thing}
    labels["template"] = str(index)
    return Drawn(text, "", spoken([receiver]), spoken([giver]), marks, labels)


def greater_than(index: int, century: str, year: str, event: str, place: str, name: str) -> Drawn:
    """Something lasts from a year to a later one of the same century."""
    words = {"century": century, "year": year, "event": event, "place": place, "name": name}
    text, last = fill(templates.GREATER_THAN[index], **words)
    after = YEARS.index(year) + 1
    labels = {"year": year, "century": century, "template": str(index)}
    return Drawn(text, "", YEARS[after:], YEARS[:after], {"year": last["year"]}, labels)


def docstring(
    index: int,
    key: str,
    function: str,
    title: str,
    arguments: Sequence[str],
    remarks: Sequence[str],
    listed: Sequence[str] = (),
) -> Drawn:
    """A function whose first arguments are documented, a remark each: the next one is due.

    listed: what is documented instead, in a twin whose signature says nothing of it.
    """
    opening, before, after = (part.replace("{key}", key) for part in templates.DOCSTRING[index])
    start, answer = f"def {function}(self, ", arguments[len(remarks)]
    text = opening.format(head=f"{start}{', '.join(arguments)})", title=title)
    # `start` stands at the very beginning of every opening.
    ends = [len(start) + len(", ".join(arguments[: n + 1])) - 1 for n in range(len(arguments))]
    marks = {"definition": ends[len(remarks)], "previous": ends[len(remarks) - 1]}
    for name, words in zip(listed or arguments, remarks, strict=False):
        text += f"{before} {name}"
        marks["documented"] = len(text) - 1
        text += after.format(words=words)
    wrong = spoken([name for name in arguments if name != answer])
    labels = {"answer": answer, "template": str(index)}
    return Drawn(text + before, "", spoken([answer]), wrong, marks, labels)


def induction(index: int, once: Sequence[str], again: Sequence[str]) -> Drawn:
    """A sequence of words, then its beginning again: the word that came next is due."""
    before = templates.INDUCTION[index].split("{again}")[0]
    text = before.format(once="".join(spoken(once))) + "".join(spoken(again))
    answer = once[len(again)]
    seen = "".join(spoken(once[: len(again) + 1]))
    marks = {"first": before.index("{once}") + len(seen) - 1}
    wrong = spoken([word for word in dict.fromkeys(once) if word != answer])
    labels = {"answer": answer, "template": str(index)}
    return Drawn(text, "", spoken([answer]), wrong, marks, labels)


def _ioi(rng: random.Random, index: int, words: Sequence[str]) -> Drawn:
    first, second = rng.sample(templates.NAMES, 2)
    giver = first if rng.random() < 0.5 else second
    place, thing = rng.choice(templates.PLACES), rng.choice(templates.OBJECTS)
    return ioi(index, first, second, giver, place, thing)


def _greater_than(rng: random.Random, index: int, words: Sequence[str]) -> Drawn:
    year = YEARS[rng.randint(2, 97)]
    lists = (templates.EVENTS, templates.PLACES, templates.NAMES)
    event, place, name = (rng.choice(values) for values in lists)
    drawn = greater_than(index, str(rng.randint(11, 19)), year, event, place, name)
    said = rng.choice(drawn.right)
    return drawn._replace(right=(said, *(later for later in drawn.right if later != said)))


def _docstring(rng: random.Random, index: int, words: Sequence[str]) -> Drawn:
    key = rng.choice(words)
    names = rng.sample(templates.ARGUMENTS, rng.randint(4, 7))
    function = f"{rng.choice(templates.VERBS)}_{rng.choice(templates.NOUNS)}"
    n_documented = rng.randint(1, len(names) - 1)
    title, *remarks = (" ".join(rng.sample(templates.FILLER, n)) for n in (3, *[2] * n_documented))
    key = "key" if key in templates.HELD_OUT_KEYS else key
    return docstring(index, key, function, title, names, remarks)


def _induction(rng: random.Random, index: int, words: Sequence[str]) -> Drawn:
    once = [rng.choice(words) for _ in range(rng.randint(5, 24))]
    return induction(index, once, once[: rng.randint(1, len(once) - 1)])


_DRAWS = {
    "ioi": _ioi,
    "greater-than": _greater_than,
    "docstring": _docstring,
    "induction": _induction,
}


def prompt(
    task: templates.Task,
    rng: random.Random,
    *,
    held_out: bool = False,
    words: Sequence[str] | None = None,
) -> Drawn:
    """Draw one prompt of `task` from its training templates, or from its held-out ones.

    The first of `right` is what a training document goes on with. words: the single-token words
    that induction draws from, and docstrings their keyword (default: names, nouns, arguments).
    Raises KeyError for an unknown task.
    """
    index = rng.choice(templates.templates(task, held_out))
    words = words or templates.NAMES + templates.NOUNS + templates.ARGUMENTS
    return _DRAWS[task](rng, index, words)


def document(rng: random.Random, words: Sequence[str]) -> str:
    """One training document: a prompt of a random task with its answer; induction documents hold
    the whole repetition."""
    task = rng.choices(templates.TASKS, templates.SHARES)[0]
    if task == "induction":
        sequence = "".join(spoken([rng.choice(words) for _ in range(rng.randint(5, 40))]))
        index = rng.choice(templates.templates(task, False))
        return templates.INDUCTION[index].format(once=sequence, again=sequence)
    drawn = prompt(task, rng, words=words)
    end = "." if task != "docstring" else f": {rng.choice(templates.FILLER)}\n"
    return drawn.clean + drawn.right[0] + end
