"""A program for a transformer of two layers: named variables and hand-written maps between them.

`induction`: after `... a b ... a` comes `b` (Olsson et al. 2022): an induction head whose keys a
previous-token head writes. Shapes: U coordinates (all variables together), E width of a head, N
neurons, V words.
"""

import random
from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.tasks import Drawn

N_HEADS, N_LAYERS, N_JUNK = 4, 2, 4
LEVEL = 300.0  # the constant's value
GAIN = 10.0  # logit per unit of the output variable
# A target's score above the others': its attention weight is e^5 / (e^5 + others), 0.9 to 0.99.
SOFT = 5.0
SATURATED = 40.0  # in float32 no gradient passes such an attention
LETTERS = list("abcdefghijklmnop")
BOS = "<s>"
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
    """A program.

    name: of its task.
    variables: what the residual stream holds.
    words: the vocabulary.
    length: tokens of a prompt, at most.
    heads: by (layer, head).
    mlps: by layer.
    output: [V, U], what each word's logit reads.
    edges: from `embed`, `aL.hH`, `mL` to `aL.hH.q`, `.k`, `.v`, `mL`, `logits`: those that carry
        what differs between twins, which is the truth of resample ablation.
    fixed: edges that carry what all prompts share: setting them (all but `level`) to zero breaks
        the program too.
    pairs: prompts without end, with twins that differ in every word the program reads.
    """

    name: str

    variables: Variables
    words: list[str]
    length: int
    heads: dict[tuple[int, int], Head]
    mlps: dict[int, Neurons]
    output: Tensor
    edges: tuple[Edge, ...]
    fixed: tuple[Edge, ...]
    pairs: Callable[[random.Random], Iterator[Drawn]]


def induction(sharpness: float = SOFT) -> Program:
    """Heads 0.2 (previous token) and 1.1 (induction); prompts of at most 16 tokens.

    sharpness: of its attention; SOFT lets gradients through, SATURATED does not.
    """
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
    output = GAIN * var("out").T
    return Program(
        "induction", var, words, length, heads, {}, output, edges, fixed, induction_pairs
    )


def text(words: list[str]) -> str:
    """Words as a prompt."""
    return " ".join(words)


def induction_pairs(rng: random.Random) -> Iterator[Drawn]:
    """Eight letters and the first five again; the twin does the same with the other eight
    letters."""
    while True:
        letters = rng.sample(LETTERS, 16)
        clean, corrupted = letters[:8] + letters[:5], letters[8:] + letters[8:13]
        wrong = tuple(f" {letter}" for letter in letters[:8] if letter != letters[5])
        yield Drawn(
            text(clean),
            text(corrupted),
            (f" {letters[5]}",),
            wrong,
            {"first": 2 * 5},
            {"answer": letters[5]},
        )
