"""The planted programs that methods are tested on: the library's, and one with an MLP.

`selector`: a b x y -> x where a and b are 1, else y. Two heads fetch a and b, an MLP computes c = a
and b, and c is the query of a head that looks at x or at y.
"""

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from saelab.analysis.circuits import planted
from saelab.analysis.circuits.planted.compiled import Compiled
from saelab.analysis.circuits.planted.program import (
    BOS,
    GAIN,
    LETTERS,
    LEVEL,
    SATURATED,
    SOFT,
    Head,
    Neurons,
    Program,
    Variables,
    induction,
    text,
)
from saelab.tasks import Drawn, Task

__all__ = ["PROGRAMS", "SATURATED", "SOFT", "Compiled", "compile_program", "compiled_task"]
END = "?"


def selector(sharpness: float = SOFT) -> Program:
    """Heads 0.0 (fetches a), 0.3 (fetches b), MLP 0 (c = a and b), head 1.2 (fetches x or y)."""
    words, length = [BOS, "0", "1", *LETTERS, END], 6
    var = Variables(word=len(words), position=length, a=1, b=1, c=1, out=len(words))
    end, one = var("position")[:, 5:], var("word")[:, 2:3]
    fetch_a = Head(sharpness * end, var("position")[:, 1:2], one, var("a").T)
    fetch_b = Head(sharpness * end, var("position")[:, 2:3], one, var("b").T)
    both = Neurons(var("a") + var("b"), torch.tensor([-1.0]), var("c").T)
    ask = sharpness * torch.cat([2 * var("c"), var("level") / LEVEL], 1)  # x scores 2 c, y scores 1
    choose = Head(ask, var("position")[:, 3:5], var("word"), var("out").T)
    edges = (
        ("embed", "a0.h0.v"),
        ("embed", "a0.h3.v"),
        ("a0.h0", "m0"),
        ("a0.h3", "m0"),
        ("m0", "a1.h2.q"),
        ("embed", "a1.h2.v"),
        ("a1.h2", "logits"),
    )
    fixed = tuple(
        ("embed", target) for target in ("a0.h0.q", "a0.h0.k", "a0.h3.q", "a0.h3.k", "a1.h2.k")
    )
    heads = {(0, 0): fetch_a, (0, 3): fetch_b, (1, 2): choose}
    output = GAIN * var("out").T
    return Program(
        "selector", var, words, length, heads, {0: both}, output, edges, fixed, selector_pairs
    )


def selector_pairs(rng: random.Random) -> Iterator[Drawn]:
    """1 1 x y, whose answer is x; the twin is 0 0 with two other letters."""
    while True:
        x, y, *others = rng.sample(LETTERS, 4)
        labels = {"x": x, "y": y}
        marks = {"a": 0, "b": 2, "x": 4, "y": 6}
        clean, corrupted = text(["1", "1", x, y, END]), text(["0", "0", *others, END])
        yield Drawn(clean, corrupted, (f" {x}",), (f" {y}",), marks, labels)


PROGRAMS: dict[str, Callable[[float], Program]] = {"induction": induction, "selector": selector}


def compile_program(
    name: str, folder: Path, *, sharpness: float = SOFT, **options: Any
) -> Compiled:
    """`planted.compile_program` of the program `name`."""
    return planted.compile_program(PROGRAMS[name](sharpness), folder, **options)


def compiled_task(name: str, model: Any, n: int = 100, seed: int = 0) -> Task:
    """`planted.compiled_task` of the program `name`."""
    return planted.compiled_task(PROGRAMS[name](SOFT), model, n, seed)
