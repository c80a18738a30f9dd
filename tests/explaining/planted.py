"""A corpus in which it is known where features fire: text drawn at random, and features that are
planted by a rule.

Shapes: C contexts of T positions, U features.
"""

from collections.abc import Callable, Sequence

import numpy as np

from saelab.explaining.corpus import HELD_OUT, TOGETHER, Corpus, Firings
from saelab.explaining.families import every

WORDS = [
    "<s>", "self", ".", "(", ")", " self", "def", " the", " cat", "7", "42", "2026", "\n", "\n    ",
    " Return", "None", "#", '"', " x", " y", " =", "+", ":", " naïve", "foo_bar", " ABC",
]  # fmt: skip
C, T = 480, 40
Rule = Callable[[list[str], int], bool]


def corpus(seed: int = 0) -> Corpus:
    """Random text: two thirds for training, the rest held out, of four documents each."""
    rng = np.random.default_rng(seed)
    tokens_CT = rng.integers(1, len(WORDS), (C, T)).astype(np.int32)
    tokens_CT[:, 0] = 0
    number_C = np.arange(C)
    part_C = np.where(number_C < 320, number_C // TOGETHER % 2, HELD_OUT).astype(np.int8)
    documents_CT = np.broadcast_to((number_C // 40)[:, None], (C, T)).astype(np.int32)
    counted_CT = np.broadcast_to(np.arange(T) > 0, (C, T))
    return Corpus(tokens_CT, documents_CT, counted_CT, part_C)


def firings(read: Corpus, rules: Sequence[Rule]) -> Firings:
    """Where features fire that are planted by rules, token by token."""
    units, places = [], []
    for unit, rule in enumerate(rules):
        for context, row in enumerate(read.tokens.tolist()):
            texts = [WORDS[token] for token in row]
            fired = [at for at in range(1, T) if rule(texts, at)]
            units += [unit] * len(fired)
            places += [context * T + at for at in fired]
    order = np.argsort(places, kind="stable")
    unit_N, place_N = (np.array(column, np.int32)[order] for column in (units, places))
    return Firings(unit_N, place_N, np.ones(len(units), np.float16), len(rules))


def families(read: Corpus, promoted_UJ=None):
    """The families of the corpus."""
    return every(read, WORDS, promoted_UJ)
