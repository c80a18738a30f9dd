"""Groups within sorted arrays, and sorting by whole numbers. N entries; arrays are numpy."""

import numpy as np
from numpy.typing import NDArray

DIGIT = 16  # bits


def stable_order(key_N: NDArray, n_keys: int) -> NDArray:
    """The order that sorts whole numbers below n_keys, equal ones as they stand.

    numpy sorts 16-bit keys by radix, about ten times as fast as it compares; larger keys are sorted
    digit by digit, the last one first.

    >>> stable_order(np.array([2, 0, 2]), 3)
    array([1, 0, 2])
    """
    order = np.argsort((key_N & 0xFFFF).astype(np.uint16), kind="stable")
    shift = DIGIT
    while n_keys > 1 << shift:
        digit_N = ((key_N >> shift) & 0xFFFF).astype(np.uint16)
        order = order[np.argsort(digit_N[order], kind="stable")]
        shift += DIGIT
    return order


def place_in_group(group_N: NDArray) -> NDArray:
    """Each entry's place, from 0, among the entries of its group; equal groups stand together, in
    ascending order.

    >>> place_in_group(np.array([3, 3, 3, 7, 7]))
    array([0, 1, 2, 0, 1])
    """
    # In a sorted array searchsorted finds the first of equal entries: where the group begins.
    return np.arange(len(group_N)) - np.searchsorted(group_N, group_N)


def heads(*keys: NDArray) -> NDArray:
    """Where groups of equal keys begin; equal ones stand together.

    >>> heads(np.array([3, 3, 7, 7]), np.array([0, 0, 0, 1]))
    array([0, 2, 3])
    """
    if not len(keys[0]):
        return np.zeros(0, np.int64)
    changes_N = np.ones(len(keys[0]), bool)
    changes_N[1:] = np.logical_or.reduce([key[1:] != key[:-1] for key in keys])
    return np.flatnonzero(changes_N)


def best(group_N: NDArray, score_N: NDArray, n: int, *ties: NDArray) -> NDArray:
    """Numbers of the n best-scored entries of each group, by group, then falling score; ties to the
    lower entry of `ties`, in that order, then to the first."""
    order = np.lexsort((*reversed(ties), -score_N, group_N))
    return order[place_in_group(group_N[order]) < n]


def spans(count_S: NDArray, first_S: NDArray) -> NDArray:
    """The numbers first_S[s], first_S[s] + 1, ..., count_S[s] of them, span after span."""
    starts_S = np.cumsum(count_S) - count_S
    total = int(count_S.sum())
    return np.repeat(first_S - starts_S, count_S) + np.arange(total)
