"""The bundled model's IOI, greater-than and docstring tasks as labelled prompts whose attributes
are drawn independently."""

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from saelab.bundled import prompts, templates
from saelab.bundled.prompts import Drawn
from saelab.tasks.answers import Metric

VALUES = 50  # of each attribute that is a word: every one is seen often enough to estimate its code
World = dict[str, Any]  # what is chosen for one prompt, by name


class Recipe(NamedTuple):
    """A task.

    metric: of its answers.
    attributes: what each of them may be.
    nuisance: likewise, of what is no attribute.
    distinct: those of them that all differ in one prompt.
    marks: the name of a position that may be edited -> its name in the prompt's marks.
    build: the prompt from what was chosen.
    """

    metric: Metric
    attributes: Mapping[str, Sequence[str]]
    nuisance: Mapping[str, Sequence[Any]]
    distinct: tuple[str, ...]
    marks: Mapping[str, str]
    build: Callable[[World], Drawn]

    def draw(self, rng: random.Random) -> World:
        """A prompt's choices, each uniform, drawn again until those that must differ do."""
        lists = {**self.attributes, **self.nuisance}
        while True:
            world = {name: rng.choice(values) for name, values in lists.items()}
            if self.fits(world):
                return world

    def fits(self, world: World) -> bool:
        """Whether those that must differ do."""
        return len({world[name] for name in self.distinct}) == len(self.distinct)

    def twin(self, world: World, attribute: str, rng: random.Random) -> World:
        """The same prompt with another value of one attribute."""
        values = [value for value in self.attributes[attribute] if value != world[attribute]]
        others = [world | {attribute: value} for value in values]
        return rng.choice([other for other in others if self.fits(other)])

    def prompt(self, world: World, group: str) -> Drawn:
        """The prompt of these choices, labelled with its attributes alone."""
        drawn = self.build(world)
        labels = {name: world[name] for name in self.attributes}
        marks = {name: drawn.marks[mark] for name, mark in self.marks.items()}
        return drawn._replace(labels=labels, marks=marks, group=group)


def _ioi(world: World) -> Drawn:
    names = (world["io"], world["s"])
    first, second = names if world["position"] == "ABB" else names[::-1]
    rest = (world["place"], world["object"])
    return prompts.ioi(world["template"], first, second, world["s"], *rest)


def _greater_than(world: World) -> Drawn:
    names = ("template", "century", "year", "event", "place", "name")
    return prompts.greater_than(*(world[name] for name in names))


def _docstring(world: World) -> Drawn:
    arguments = [world[name] for name in ("first", "previous", "answer", "next")]
    function = f"{world['verb']}_{world['noun']}"
    return prompts.docstring(0, "", function, world["title"], arguments, [world["words"]] * 2)


_NAMES, _WORDS = templates.NAMES[:VALUES], templates.ARGUMENTS[:VALUES]
TASKS = {
    "ioi": Recipe(
        metric="logit_difference",
        attributes={"io": _NAMES, "s": _NAMES, "position": ["ABB", "BAB"]},
        nuisance={
            "template": [0, 2, 3],
            "place": templates.PLACES,
            "object": templates.OBJECTS,
        },
        distinct=("io", "s"),
        marks={"io": "io", "s1": "s1", "s2": "s2"},
        build=_ioi,
    ),
    "greater-than": Recipe(
        metric="probability_difference",
        attributes={"year": prompts.YEARS[2:98], "century": [str(c) for c in range(11, 20)]},
        nuisance={
            "template": [0, 1, 3],
            "event": templates.EVENTS,
            "place": templates.PLACES,
            "name": templates.NAMES,
        },
        distinct=(),
        marks={"year": "year"},
        build=_greater_than,
    ),
    "docstring": Recipe(
        metric="logit_difference",
        attributes={"answer": _WORDS, "previous": _WORDS},
        nuisance={
            "first": templates.ARGUMENTS,
            "next": templates.ARGUMENTS,
            "verb": templates.VERBS,
            "noun": templates.NOUNS,
            "title": templates.FILLER,
            "words": templates.FILLER,
        },
        distinct=("answer", "previous", "first", "next"),
        marks={"answer": "definition", "previous": "documented"},
        build=_docstring,
    ),
}


def rows(task: str, n: int, seed: int = 0, twins: bool = False) -> list[Drawn]:
    """n prompts of a task of TASKS and, with `twins`, for each of them one counterfactual per
    attribute, after all of them."""
    recipe, rng = TASKS[task], random.Random(seed)
    worlds = [recipe.draw(rng) for _ in range(n)]
    sets = [worlds]
    if twins:
        for attribute in recipe.attributes:
            sets.append([recipe.twin(world, attribute, rng) for world in worlds])
    return [recipe.prompt(world, str(i)) for one in sets for i, world in enumerate(one)]


def gifts(n: int, names: Sequence[str], held_out: bool, seed: int = 0) -> list[Drawn]:
    """n indirect-object prompts among a few names, labelled with who receives (`io`), who gives
    (`s`) and in which order; held_out: of templates the bundled model was not trained on."""
    rng = random.Random(f"{seed} {held_out}")
    return [_gift(rng, list(names), held_out) for _ in range(n)]


def _gift(rng: random.Random, names: list[str], held_out: bool) -> Drawn:
    first, second = rng.sample(names, 2)
    giver = rng.choice((first, second))
    index = rng.choice(templates.templates("ioi", held_out))
    place, thing = rng.choice(templates.PLACES), rng.choice(templates.OBJECTS)
    return prompts.ioi(index, first, second, giver, place, thing)
