"""Which examples are shown: near-duplicates once, with how many they stand for."""

import numpy as np

from saelab.features import shown
from saelab.features.collect import Contexts
from saelab.features.examples import Examples
from saelab.features.schema import MORE, N_TOP, TOP

T = 40


def examples(pole, context, position, value):
    """Examples with one pair each."""
    n = len(pole)
    pole, context, position = (np.array(at, np.int32) for at in (pole, context, position))
    value, ones = np.array(value, np.float32), np.ones(n, np.int32)
    window = np.arange(n).astype(np.uint64)
    return Examples(pole, context, position, value, window, ones, ones, position, value)


def contexts(n, seed=0):
    tokens_CT = np.random.default_rng(seed).integers(1, 1000, (n, T)).astype(np.int32)
    return Contexts(tokens_CT, np.zeros((n, T), np.int32), np.ones((n, T), bool))


NONE = examples([], [], [], [])


def test_near_duplicates_are_one_and_counted():
    there = contexts(6)
    there.tokens[3] = there.tokens[1]
    there.tokens[3, 22:26] = 7  # four of the 25 tokens that are compared differ
    there.tokens[5] = there.tokens[1]
    there.tokens[5, 20:26] = 8  # six do
    top = examples([0] * 5, [1, 2, 3, 4, 5], [20] * 5, [9, 8, 7, 6, 5])
    merged = shown.of_block(top, NONE, there)
    assert merged.examples.context.tolist() == [1, 2, 4, 5]
    assert merged.examples.copies.tolist() == [2, 1, 1, 1]
    assert {*merged.band.tolist()} == {TOP}


def test_what_lies_beyond_a_contexts_ends_is_in_common_with_nothing():
    top = examples([0, 0, 0, 0], [0, 1, 2, 3], [1, 1, T - 1, T - 1], [9, 8, 7, 6])
    there = contexts(4)
    there.tokens[2:, : T - 12] = 5
    assert len(shown.of_block(top, NONE, there).examples.pole) == 4


def test_features_do_not_merge_with_each_other():
    there = contexts(2)
    there.tokens[1] = there.tokens[0]
    top = examples([0, 0, 1, 1, 2], [0, 1, 0, 1, 1], [20] * 5, [9, 8, 9, 8, 9])
    merged = shown.of_block(top, NONE, there).examples
    assert merged.pole.tolist() == [0, 1, 2] and merged.copies.tolist() == [2, 2, 1]


def test_a_sampled_top_context_is_not_shown_twice_and_the_rest_are_places():
    n = 24
    there = contexts(n)
    sampled = examples([0] * n, range(n), [20] * n, range(1, n + 1))
    top = examples([0] * N_TOP, range(n - 1, n - 1 - N_TOP, -1), [20] * N_TOP, range(n, 12, -1))
    merged = shown.of_block(top, sampled, there)
    places = list(zip(merged.examples.context, merged.examples.position, strict=True))
    assert len(places) == len({*places}) == n
    assert merged.band.tolist().count(TOP) == N_TOP
    bare = merged.band == MORE
    assert bare.sum() == n - N_TOP - 6  # the two weaker bands show three each
    assert (merged.examples.n_pairs == ~bare).all() and len(merged.examples.values) == (~bare).sum()
