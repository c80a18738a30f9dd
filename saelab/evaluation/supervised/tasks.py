"""The bundled model's IOI, greater-than and docstring tasks as labelled prompts whose attributes
are drawn independently."""

import random
import string
from collections.abc import Callable, Sequence
from typing import NamedTuple

from saelab.bundled import templates
from saelab.evaluation.supervised.prompts import Row
from saelab.tasks.answers import Metric

VALUES = 50  # of each attribute that is a word: every one is seen often enough to estimate its code
World = dict[str, str]


class Recipe(NamedTuple):
    """A task. attributes, nuisance: what each may be; distinct: those of them that all differ in
    one prompt."""

    metric: Metric
    attributes: dict[str, Sequence[str]]
    nuisance: dict[str, Sequence[str]]
    distinct: tuple[str, ...]
    build: Callable[[World], Row]

    def draw(self, rng: random.Random) -> World:
        """A prompt's choices, each uniform, drawn again until those that must differ do."""
        while True:
            world = {
                name: rng.choice(values)
                for name, values in (self.attributes | self.nuisance).items()
            }
            if self.fits(world):
                return world

    def fits(self, world: World) -> bool:
        """Whether those that must differ do."""
        return len({world[name] for name in self.distinct}) == len(self.distinct)

    def twin(self, world: World, attribute: str, rng: random.Random) -> World:
        """The same prompt with another value of one attribute."""
        others = [
            world | {attribute: value}
            for value in self.attributes[attribute]
            if value != world[attribute]
        ]
        return rng.choice([other for other in others if self.fits(other)])


def _fill(template: str, **words: str) -> tuple[str, dict[str, int]]:
    """The text, and the number of the last character of each field."""
    text, last = "", {}
    for literal, field, *_ in string.Formatter().parse(template):
        text += literal
        if field:
            text += words[field]
            last[field] = len(text) - 1
    return text, last


def _ioi(world: World) -> Row:
    first, second = ("io", "s") if world["position"] == "ABB" else ("s", "io")
    words = {
        "A": world[first],
        "B": world[second],
        "S": world["s"],
        "place": world["place"],
        "object": world["object"],
    }
    text, last = _fill(world["template"], **words)
    places = {first: last["A"], second: last["B"]}
    attributes = {name: world[name] for name in ("io", "s", "position")}
    positions = {"io": places["io"], "s1": places["s"], "s2": last["S"]}
    return Row(text, (f" {world['io']}",), (f" {world['s']}",), attributes, positions)


def _greater_than(world: World) -> Row:
    text, last = _fill(
        world["template"],
        **{name: world[name] for name in ("event", "place", "name", "century", "year")},
    )
    years = [f"{year:02d}" for year in range(100)]
    at = years.index(world["year"]) + 1
    attributes = {name: world[name] for name in ("year", "century")}
    return Row(text, tuple(years[at:]), tuple(years[:at]), attributes, {"year": last["year"]})


def _docstring(world: World) -> Row:
    opening, before, after = templates.DOCSTRING[0]
    arguments = [world[name] for name in ("first", "previous", "answer", "next")]
    head = f"def {world['verb']}_{world['noun']}(self, "
    places = {"answer": len(head) + len(", ".join(arguments[:3])) - 1}
    text = opening.format(head=head + ", ".join(arguments) + ")", title=world["title"])
    for name in ("first", "previous"):
        text += f"{before} {world[name]}"
        places["previous"] = len(text) - 1
        text += after.format(words=world["words"])
    wrong = tuple(f" {name}" for name in arguments if name != world["answer"])
    attributes = {name: world[name] for name in ("answer", "previous")}
    return Row(text + before, (f" {world['answer']}",), wrong, attributes, places)


_NAMES, _WORDS = templates.NAMES[:VALUES], templates.ARGUMENTS[:VALUES]
TASKS = {
    "ioi": Recipe(
        "logit_difference",
        {"io": _NAMES, "s": _NAMES, "position": ["ABB", "BAB"]},
        {
            "template": [templates.IOI[i] for i in (0, 2, 3)],
            "place": templates.PLACES,
            "object": templates.OBJECTS,
        },
        ("io", "s"),
        _ioi,
    ),
    "greater-than": Recipe(
        "probability_difference",
        {
            "year": [f"{year:02d}" for year in range(2, 98)],
            "century": [str(c) for c in range(11, 20)],
        },
        {
            "template": [templates.GREATER_THAN[i] for i in (0, 1, 3)],
            "event": templates.EVENTS,
            "place": templates.PLACES,
            "name": templates.NAMES,
        },
        (),
        _greater_than,
    ),
    "docstring": Recipe(
        "logit_difference",
        {"answer": _WORDS, "previous": _WORDS},
        {
            "first": templates.ARGUMENTS,
            "next": templates.ARGUMENTS,
            "verb": templates.VERBS,
            "noun": templates.NOUNS,
            "title": templates.FILLER,
            "words": templates.FILLER,
        },
        ("answer", "previous", "first", "next"),
        _docstring,
    ),
}


def rows(task: str, n: int, seed: int = 0, twins: bool = False) -> list[Row]:
    """n prompts of a task of TASKS and, with `twins`, for each of them one counterfactual per
    attribute, after all of them."""
    recipe, rng = TASKS[task], random.Random(seed)
    worlds = [recipe.draw(rng) for _ in range(n)]
    found = [recipe.build(world)._replace(group=str(i)) for i, world in enumerate(worlds)]
    if twins:
        for attribute in recipe.attributes:
            found += [
                recipe.build(recipe.twin(w, attribute, rng))._replace(group=str(i))
                for i, w in enumerate(worlds)
            ]
    return found
