"""Two programs for a transformer of two layers, as named variables and hand-written maps between
them.

`induction`: after `... a b ... a` comes `b` (Olsson et al. 2022): an induction head whose keys a
previous-token head writes. `selector`: a b x y -> x where a and b are 1, else y. Two heads fetch a
and b, an MLP computes c = a and b, and c is the query of a head that looks at x or at y. Shapes: U
coordinates (all variables together), E width of a head, N neurons, V words.
"""

import random
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.tasks.drawing import Drawn

N_HEADS, N_LAYERS, N_JUNK = 4, 2, 4
LEVEL = 300.0  # the constant's value
GAIN = 10.0  # logit per unit of the output variable
LETTERS = list("abcdefghijklmnop")
BOS, END = "<s>", "?"
Edge = tuple[str, str]


class Variables:
    """Which coordinates of the residual stream hold which variable; `level` is one constant, `junk`
    is read by nothing."""

    def __init__(self, **sizes: int):
        self.where, n = {}, 0
        for name, size in {"level": 1, **sizes, "junk": N_JUNK}.items():
            self.where[name], n = list(range(n, n + size)), n + size
        self.n = n + n % 2  # twice this divides by the heads

    def __call__(self, name: str) -> Tensor:
        """[U, size]: reads the variable's coordinates; its transpose writes them."""
        return torch.eye(self.n)[:, self.where[name]]


class Head(NamedTuple):
    """A head's maps: query, key [U, E], whose product is the attention score; value [U, E]; output
    [E, U]."""

    query: Tensor
    key: Tensor
    value: Tensor
    output: Tensor


class Neurons(NamedTuple):
    """Neurons of an MLP with ReLU: enter [U, N], bias [N], leave [N, U]."""

    enter: Tensor
    bias: Tensor
    leave: Tensor


class Program(NamedTuple):
    """A program. heads by (layer, head), mlps by layer; output [V, U]: what each word's logit
    reads.

    edges: from `embed`, `aL.hH`, `mL` to `aL.hH.q`, `.k`, `.v`, `mL`, `logits`: those that carry
    what differs between twins, which is the truth of resample ablation. fixed: edges that carry
    what all prompts share: setting them (all but `level`) to zero breaks the program too.
    """

    variables: Variables
    words: list[str]
    length: int
    heads: dict[tuple[int, int], Head]
    mlps: dict[int, Neurons]
    output: Tensor
    edges: tuple[Edge, ...]
    fixed: tuple[Edge, ...]


def induction(sharpness: float) -> Program:
    """Heads 0.2 (previous token) and 1.1 (induction); prompts of at most 16 tokens."""
    words, length = [BOS, *LETTERS], 16
    var = Variables(word=len(words), position=length, previous=len(words), out=len(words))
    before = torch.eye(length).roll(
        -1, 1
    )  # position t asks for t - 1; position 0 for the last one, which it cannot see
    heads = {
        (0, 2): Head(
            sharpness * var("position") @ before, var("position"), var("word"), var("previous").T
        ),
        (1, 1): Head(sharpness * var("word"), var("previous"), var("word"), var("out").T),
    }
    edges = (
        ("embed", "a0.h2.v"),
        ("a0.h2", "a1.h1.k"),
        ("embed", "a1.h1.q"),
        ("embed", "a1.h1.v"),
        ("a1.h1", "logits"),
    )
    fixed = (("embed", "a0.h2.q"), ("embed", "a0.h2.k"))
    return Program(var, words, length, heads, {}, GAIN * var("out").T, edges, fixed)


def selector(sharpness: float) -> Program:
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
    return Program(var, words, length, heads, {0: both}, GAIN * var("out").T, edges, fixed)


def _text(words: list[str]) -> str:
    return " ".join(words)


def induction_pairs(rng: random.Random) -> Iterator[Drawn]:
    """Eight letters and the first five again; the twin does the same with the other eight
    letters."""
    while True:
        letters = rng.sample(LETTERS, 16)
        clean, corrupted = letters[:8] + letters[:5], letters[8:] + letters[8:13]
        wrong = tuple(f" {letter}" for letter in letters[:8] if letter != letters[5])
        yield Drawn(
            _text(clean),
            _text(corrupted),
            (f" {letters[5]}",),
            wrong,
            {"first": 2 * 5},
            {"answer": letters[5]},
        )


def selector_pairs(rng: random.Random) -> Iterator[Drawn]:
    """1 1 x y, whose answer is x; the twin is 0 0 with two other letters."""
    while True:
        x, y, *others = rng.sample(LETTERS, 4)
        labels = {"x": x, "y": y}
        marks = {"a": 0, "b": 2, "x": 4, "y": 6}
        clean, corrupted = _text(["1", "1", x, y, END]), _text(["0", "0", *others, END])
        yield Drawn(clean, corrupted, (f" {x}",), (f" {y}",), marks, labels)
