"""Loops that compute the exact pre-activations of chosen pairs; every value of every code comes
from `dot` and the biases here.

A query is what a budget belongs to (a token, or a feature), an item what it may pick (a feature, or
a token).
"""

from typing import NamedTuple

import numba
import numpy as np

from saelab.kernels.cpu.jit import compiled
from saelab.kernels.cpu.screen.candidates import LAST, bound_above, insert, level
from saelab.kernels.cpu.vector import BLOCK, above, dot, lowest_bit, prefetch

_AHEAD = 4  # rows are fetched this many pairs before they are needed
_BLOCK = 256  # pairs that one thread scores at a time
_QUERIES = 16  # queries that share a thread's memory
_FEW = 64  # so many items are sorted fastest by insertion


class Sides(NamedTuple):
    """What scores are made of: size(query . item + biases) (1 + beta |boost_query . boost_item|),
    size(u) = u, or |u| if signed.
    """

    queries: np.ndarray
    items: np.ndarray
    query_bias: np.ndarray
    item_bias: np.ndarray
    boost_queries: np.ndarray
    boost_items: np.ndarray
    signed: bool
    beta: float


@compiled()
def _score(value, boost, signed, beta):
    """A pair's score from its pre-activation and, if beta > 0, its other dot."""
    return (abs(value) if signed else value) * (1.0 + beta * abs(boost))


@compiled()
def _widen(sides, q, row, boost_row):
    """Copy query q's rows into float64 ones."""
    for d in range(len(row)):
        row[d] = sides.queries[q, d]
    if sides.beta != 0.0:
        for d in range(len(boost_row)):
            boost_row[d] = sides.boost_queries[q, d]


@compiled()
def _finish(n_winners, items, values, kept_items, kept_values):
    """Write the winners in ascending order of item."""
    if n_winners > _FEW:
        order = np.argsort(items[:n_winners])
        for i in range(n_winners):
            kept_items[i] = items[order[i]]
            kept_values[i] = values[order[i]]
        return
    for n in range(n_winners):
        item, place = items[n], 0
        for i in range(n_winners):
            place += items[i] < item
        kept_items[place], kept_values[place] = item, values[n]


@compiled()
def _next_best(keys, n_blocks, n_seen, more, lowest, ceiling, chosen):
    """Write the numbers of the entries with the `more` greatest keys of at most `ceiling`, and of
    those that tie with the last, to `chosen`; return (their number, the greatest key of the rest).

    n_seen: how many keys exceed the ceiling; all exceed `lowest`.
    """
    floor = level(keys, n_blocks, n_seen + more, lowest)
    n_chosen = 0
    for first in range(0, n_blocks * BLOCK, BLOCK):
        bits = above(keys, 0, first, floor) & ~above(keys, 0, first, ceiling)
        while bits:
            chosen[n_chosen] = first + lowest_bit(bits)
            n_chosen += 1
            bits &= bits - np.uint64(1)
    return n_chosen, floor


@compiled()
def _settle_query(
    sides, q, entries, theta, shift, row, boost_row, keys, chosen, scores, items, values
):
    """How many winners the candidates hold, now in items and values; -1 if that cannot be
    certified."""
    budget, n_entries = len(scores), len(entries)
    n_blocks = (n_entries + BLOCK - 1) // BLOCK
    for i in range(n_entries):
        keys[0, i] = entries[i] >> 32
    keys[0, n_entries : n_blocks * BLOCK] = 0  # no threshold lets these pass
    n_winners = n_seen = 0
    # Taken out of the tuple once: inside the loop each would cost two atomic reference counts.
    items_ID, boosts_IE, biases_I = sides.items, sides.boost_items, sides.item_bias
    signed, beta, query_bias = sides.signed, sides.beta, sides.query_bias[q]
    ceiling = np.int64(LAST)
    lowest = max(theta - 1, 0)  # a list that was cut short may hold ties with what raised theta
    more = budget + budget // 8
    while n_seen < n_entries:
        n_chosen, floor = _next_best(keys, n_blocks, n_seen, more, lowest, ceiling, chosen)
        for i in range(min(_AHEAD, n_chosen)):
            prefetch(items_ID, LAST - (entries[chosen[i]] & LAST))
        for i in range(n_chosen):
            if i + _AHEAD < n_chosen:
                prefetch(items_ID, LAST - (entries[chosen[i + _AHEAD]] & LAST))
            entry = entries[chosen[i]]
            # scores[0] is the worst winner's: what stays below it need not be known.
            if n_winners == budget and bound_above(entry >> 32, shift) <= scores[0]:
                continue
            item = LAST - (entry & LAST)
            value = dot(row, items_ID, item) + (query_bias + biases_I[item])
            boost = dot(boost_row, boosts_IE, item) if beta != 0.0 else 0.0
            score = _score(value, boost, signed, beta)
            if score > 0.0:
                n_winners = insert(scores, items, values, n_winners, score, item, value)
        if n_winners == budget and bound_above(floor, shift) <= scores[0]:
            break
        n_seen += n_chosen
        ceiling, more = floor, max(budget // 4, 8)
    # The certificate: items that never entered the list have a bound of at most theta; at 0 they
    # have no positive score, and no budget takes them.
    sure = theta == 0 or (n_winners == budget and bound_above(theta, shift) <= scores[0])
    return n_winners if sure else -1


@compiled(parallel=True)
def rescore(
    sides, starts, counts, thetas, lists, shift, budgets, places, kept_items, kept_values, founds
):
    """Each query's winners: candidates by falling bound until none left can reach the worst
    winner's exact score.

    Writes winner i of query q to kept_*[places[q] + i], ascending in item. founds[q]: how many have
    a positive score, or -1 where the winners cannot be certified: an item outside the list has a
    score below bound_above(thetas[q]), which may reach them.
    """
    # A block of queries shares the memory that its thread allocates once.
    for block in numba.prange((len(counts) + _QUERIES - 1) // _QUERIES):
        last = min((block + 1) * _QUERIES, len(counts))
        most = budgets[block * _QUERIES : last].max()
        longest = counts[block * _QUERIES : last].max()
        scores, items, values = np.empty(most), np.empty(most, np.int64), np.empty(most)
        keys = np.empty((1, longest + BLOCK), np.int32)
        chosen = np.empty(longest, np.int64)
        row, boost_row = np.empty(sides.queries.shape[1]), np.empty(sides.boost_queries.shape[1])
        for q in range(block * _QUERIES, last):
            budget, place = budgets[q], places[q]
            founds[q] = 0
            if budget == 0:
                continue
            _widen(sides, q, row, boost_row)
            entries = lists[starts[q] : starts[q] + counts[q]]
            room = (scores[:budget], items, values)
            n_winners = _settle_query(
                sides, q, entries, thetas[q], shift, row, boost_row, keys, chosen, *room
            )
            founds[q] = n_winners
            if n_winners > 0:
                _finish(n_winners, items, values, kept_items[place:], kept_values[place:])


@compiled(parallel=True)
def exhaust(sides, which, budgets, places, kept_items, kept_values, founds):
    """The winners of the queries `which`, from the exact score of every item."""
    for w in numba.prange(len(which)):
        q = which[w]
        budget = budgets[q]
        founds[q] = 0
        if budget == 0:
            continue
        scores, items, values = np.empty(budget), np.empty(budget, np.int64), np.empty(budget)
        row, boost_row = np.empty(sides.queries.shape[1]), np.empty(sides.boost_queries.shape[1])
        _widen(sides, q, row, boost_row)
        n_winners = 0
        for item in range(len(sides.items)):
            value = dot(row, sides.items, item) + (sides.query_bias[q] + sides.item_bias[item])
            boost = dot(boost_row, sides.boost_items, item) if sides.beta != 0.0 else 0.0
            score = _score(value, boost, sides.signed, sides.beta)
            if score > 0.0:
                n_winners = insert(scores, items, values, n_winners, score, item, value)
        place = places[q]
        _finish(n_winners, items, values, kept_items[place:], kept_values[place:])
        founds[q] = n_winners


@compiled(parallel=True)
def fill(founds, k, kept_items, kept_values):
    """Where a token has fewer than k positive pairs, complete them with value 0 at the lowest items
    not yet there."""
    for q in numba.prange(len(founds)):
        missing = k - founds[q]
        if missing == 0:
            continue
        items, values = kept_items[q * k : (q + 1) * k], kept_values[q * k : (q + 1) * k]
        taken = items[: founds[q]].copy()
        sizes = values[: founds[q]].copy()
        # One walk up the items merges the winners, already ascending, with the lowest free items.
        place, seen, item = 0, 0, 0
        while place < k:
            here = seen < len(taken) and taken[seen] == item
            if here or missing > 0:
                items[place] = item
                values[place] = sizes[seen] if here else 0.0
                place += 1
            if here:
                seen += 1
            elif missing > 0:
                missing -= 1
            item += 1
            if missing == 0 and seen < len(taken):
                item = taken[seen]  # no more free items wanted: jump to the next winner


@compiled(parallel=True)
def score_pairs(sides, queries, items, which, values, scores):
    """Exact values and scores of the pairs numbered `which`, at those places; neighbours of one
    query are cheapest."""
    for block in numba.prange((len(which) + _BLOCK - 1) // _BLOCK):
        last = min((block + 1) * _BLOCK, len(which))
        known = -1
        row, boost_row = np.empty(sides.queries.shape[1]), np.empty(sides.boost_queries.shape[1])
        for i in range(block * _BLOCK, last):
            if i + _AHEAD < last:
                prefetch(sides.items, items[which[i + _AHEAD]])
            n = which[i]
            if queries[n] != known:
                known = queries[n]
                _widen(sides, known, row, boost_row)
            item = items[n]
            values[n] = dot(row, sides.items, item) + (
                sides.query_bias[known] + sides.item_bias[item]
            )
            boost = dot(boost_row, sides.boost_items, item) if sides.beta != 0.0 else 0.0
            scores[n] = _score(values[n], boost, sides.signed, sides.beta)
