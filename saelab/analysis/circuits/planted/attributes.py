"""A program with two attributes at one position: the world of `saelab.evaluation.interchange`.

`item query`: each item has a colour and a shape; a head of layer 0 writes both into the stream at
the item's position, heads of layer 1 fetch the one that the query asks for. Shapes: U coordinates,
V words, A values of an attribute, P pairs.
"""

import random
from collections.abc import Iterator
from itertools import product
from typing import Any

import torch

from saelab.analysis.circuits.planted.program import (
    BOS,
    GAIN,
    SOFT,
    Head,
    Program,
    Variables,
    text,
)
from saelab.evaluation.interchange import Pairs
from saelab.tasks import Drawn

COLOURS = ["red", "green", "blue", "grey"]
SHAPES = ["ball", "cube", "cone", "ring"]
ITEMS = [f"{colour}-{shape}" for colour, shape in product(COLOURS, SHAPES)]
QUERIES = {"colour": "colour?", "shape": "shape?"}
VALUES = {"colour": COLOURS, "shape": SHAPES}
WORDS = [BOS, *ITEMS, *QUERIES.values(), *COLOURS, *SHAPES]
HOOK = "blocks.0.hook_resid_post"  # where both attributes are at the item's position
POSITION = 1  # of the item


def attributes(sharpness: float = SOFT) -> Program:
    """Head 0.1 writes what the item is, head 1.0 fetches its colour and head 1.2 its shape, each
    only where it is asked for."""
    length, n_words = 3, len(WORDS)
    var = Variables(word=n_words, position=length, colour=4, shape=4, out=n_words)
    has = {name: torch.zeros(n_words, 4) for name in VALUES}
    for item, (colour, shape) in zip(ITEMS, product(range(4), range(4)), strict=True):
        has["colour"][WORDS.index(item), colour] = 1
        has["shape"][WORDS.index(item), shape] = 1
    value_U8 = torch.cat([var("word") @ has[name] for name in VALUES], 1)
    both_8U = torch.cat([var(name).T for name in VALUES])
    here = Head(2 * sharpness * var("position"), var("position"), value_U8, both_8U)
    heads = {(0, 1): here}
    for head, name in ((0, "colour"), (2, "shape")):
        asked = var("word")[:, [WORDS.index(QUERIES[name])]]
        item, start = (var("position")[:, [n]] for n in (POSITION, 0))
        # Asked for, the item scores highest; else what starts the context, which has no attribute.
        query = 2 * sharpness * torch.cat([2 * asked, var("position").sum(1, keepdim=True)], 1)
        out = var("out")[:, [WORDS.index(word) for word in VALUES[name]]]
        heads[1, head] = Head(query, torch.cat([item, start], 1), var(name), out.T)
    edges = (
        ("embed", "a0.h1.v"),
        *(("a0.h1", f"a1.h{head}.v") for head in (0, 2)),
        *(("embed", f"a1.h{head}.q") for head in (0, 2)),
        *((f"a1.h{head}", "logits") for head in (0, 2)),
    )
    fixed = tuple(("embed", f"a{place}.{way}") for place in ("0.h1",) for way in "qk")
    fixed += tuple(("embed", f"a1.h{head}.k") for head in (0, 2))
    output = GAIN * var("out").T
    return Program("attributes", var, WORDS, length, heads, {}, output, edges, fixed, drawn)


def drawn(rng: random.Random) -> Iterator[Drawn]:
    """An item with a query; the twin has another colour and another shape."""
    while True:
        item, other = _two(rng)
        name = rng.choice([*QUERIES])
        right, wrong = (_value(each, name) for each in (item, other))
        clean, twin = (text([each, QUERIES[name]]) for each in (item, other))
        yield Drawn(clean, twin, (f" {right}",), (f" {wrong}",), {"item": 0}, {"asked": name})


def _two(rng: random.Random) -> tuple[str, str]:
    """Two items that share no attribute."""
    while True:
        item, other = rng.sample(ITEMS, 2)
        if all(_value(item, name) != _value(other, name) for name in VALUES):
            return item, other


def _value(item: str, name: str) -> str:
    colour, shape = item.split("-")
    return {"colour": colour, "shape": shape}[name]


def is_planted(model: Any) -> bool:
    """Whether a model is this compiled program, told by its words."""
    vocabulary = model.tokenizer.get_vocab() if model.tokenizer else {}
    return sorted(vocabulary) == sorted(WORDS)


def _is_apart(item: str, other: str) -> bool:
    """Whether two items are a pair of those that are held out: a third, every item among them."""
    return (ITEMS.index(item) + ITEMS.index(other)) % 3 == 0


def pairs(name: str, n: int, seed: int = 0, *, held_out: bool = False) -> Pairs:
    """n pairs for the attribute `name`, half of which ask for it and half for the other one.
    held_out: of two items that no pair without it is of."""
    rng = random.Random(seed)
    number = {word: n for n, word in enumerate(WORDS)}
    base, source, answers, cause = [], [], [], []
    while len(answers) < n:
        item, other = _two(rng)
        if _is_apart(item, other) is not held_out:
            continue
        is_cause = len(answers) % 2 == 0
        asked = name if is_cause else next(one for one in QUERIES if one != name)
        for rows, each in ((base, item), (source, other)):
            rows.append([0, number[each], number[QUERIES[asked]]])
        answers.append(number[_value(other if is_cause else item, asked)])
        cause.append(is_cause)
    where = torch.full((n,), POSITION)
    prompts = torch.tensor(base), torch.tensor(source)
    return Pairs(*prompts, torch.tensor(answers), torch.tensor(cause), where)
