"""Loops that pick: from a tile of upper bounds to lists of candidates, from candidates to the exact
winners.

A query is what a budget belongs to (a token, or a feature), an item what it may pick (a feature, or
a token). A candidate is one int64, `key << 32 | LAST - item`, so that one comparison orders by
bound and then by the lowest item. A key is a bound's bits as an integer, shifted right by `shift`
(16 for bfloat16, 0 for float32): positive floats order like their bits.
"""

import numba
import numpy as np

from saelab.kernels.cpu.jit import compiled
from saelab.kernels.cpu.vector import BLOCK, above, as_float, count_bits, lowest_bit, raise_maxima

LAST = (1 << 31) - 1


@compiled()
def keep_largest(entries, keep):
    """Reorder so that entries[:keep] are the largest (Hoare's selection)."""
    low, high = 0, len(entries) - 1
    while low < high:
        pivot = entries[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while entries[i] > pivot:
                i += 1
            while entries[j] < pivot:
                j -= 1
            if i <= j:
                entries[i], entries[j] = entries[j], entries[i]
                i += 1
                j -= 1
        if keep <= j:
            high = j
        elif keep >= i:
            low = i
        else:
            return


@compiled()
def _drop(entries, keep):
    """Keep the largest; return the greatest key among those dropped."""
    keep_largest(entries, keep)
    greatest = entries[keep]
    for i in range(keep + 1, len(entries)):
        greatest = max(greatest, entries[i])
    return greatest >> 32


@compiled()
def level(keys, n_blocks, rank, low):
    """A threshold of at least `low` that `rank` of the first blocks of keys[0] exceed, or as few
    more as ties allow; `low` where not so many exceed that."""
    high = np.int64(low)
    for i in range(n_blocks * BLOCK):
        high = max(high, np.int64(keys[0, i]))
    while high - low > 1:
        middle = (low + high) >> 1
        count = 0
        for block in range(n_blocks):
            count += count_bits(above(keys, 0, block * BLOCK, middle))
        if count == rank:
            return middle
        if count > rank:
            low = middle
        else:
            high = middle
    return low


@compiled()
def _floor(keys, q, rank):
    """A threshold that at least `rank` keys of row q exceed, and about a seventh more: that many of
    the greatest keys of groups do, and each group's is a key of its own."""
    n_blocks = keys.shape[1] // BLOCK
    # Four groups for each that counts: of the keys that pass, few share a group then.
    n_maxima = min(n_blocks, (4 * rank + BLOCK - 1) // BLOCK)
    if rank <= 0 or rank > n_maxima * BLOCK:
        return np.int64(0)
    maxima = np.zeros((1, n_maxima * BLOCK), keys.dtype)
    for block in range(n_blocks):
        raise_maxima(keys, q, block * BLOCK, maxima, block % n_maxima * BLOCK)
    return level(maxima, n_maxima, rank, np.int64(0))


@compiled(parallel=True)
def collect(keys, first, step, starts, keeps, factor, ranks, counts, thetas, lists):
    """Append to each query's list the items of a tile whose key exceeds its threshold; column c is
    item first + c * step.

    A list that reaches factor * keeps[q] drops all but its largest keeps[q] and raises the
    threshold to the greatest key dropped, so that at any time every item seen is in the list or has
    a key of at most the threshold. Where ranks[q] > 0 the threshold starts at one that about so
    many keys of this tile exceed, or some more.
    """
    for q in numba.prange(len(counts)):
        keep = keeps[q]
        if keep == 0:
            continue
        entries = lists[starts[q] : starts[q] + factor * keep]
        count, theta = counts[q], max(thetas[q], _floor(keys, q, ranks[q]))
        for column in range(0, keys.shape[1], BLOCK):
            # One bit per key of the block that passes: most blocks have none, and cost one compare.
            bits = above(keys, q, column, theta)
            while bits:
                c = column + lowest_bit(bits)
                bits &= bits - np.uint64(1)  # clears the lowest bit
                key = np.int64(keys[q, c])
                if key <= theta:  # theta may have risen since the compare
                    continue
                if count == len(entries):
                    theta = _drop(entries, keep)
                    count = keep
                    if key <= theta:
                        continue
                entries[count] = (key << 32) | (LAST - (first + c * step))
                count += 1
        counts[q], thetas[q] = count, theta


# A heap of our own and not `heapq`, which numba has for lists only: this one works in place on
# arrays that all queries of a thread share.


@compiled()
def _worse(score, item, other_score, other_item):
    return score < other_score or (score == other_score and item > other_item)


@compiled()
def insert(scores, items, values, n_held, score, item, value):
    """Put a pair into the heap of the best, whose root is the worst of them; return how many it
    holds."""
    size = len(scores)
    if n_held < size:
        i = n_held
        while i > 0 and _worse(score, item, scores[(i - 1) // 2], items[(i - 1) // 2]):
            parent = (i - 1) // 2
            scores[i], items[i], values[i] = scores[parent], items[parent], values[parent]
            i = parent
        scores[i], items[i], values[i] = score, item, value
        return n_held + 1
    if not _worse(scores[0], items[0], score, item):
        return n_held
    # The newcomer takes the root's place and sinks until no child is worse.
    i = 0
    while 2 * i + 1 < size:
        child = 2 * i + 1
        if child + 1 < size and _worse(
            scores[child + 1], items[child + 1], scores[child], items[child]
        ):
            child += 1
        if not _worse(scores[child], items[child], score, item):
            break
        scores[i], items[i], values[i] = scores[child], items[child], values[child]
        i = child
    scores[i], items[i], values[i] = score, item, value
    return n_held


@compiled()
def bound_above(key, shift):
    """A number that every exact score with a bound of at most this key stays below."""
    # A key is a bound cut short: the bound itself lies below the next key's number.
    return np.float64(as_float((np.int64(key) + 1) << shift))


@compiled(parallel=True)
def histogram(keys, stride, shift):
    """[32768]: how many positive keys of rows 0, stride, 2 stride, ... have these upper 15 bits of
    a float32 number."""
    # Eight parts, so that threads do not add to one counter.
    parts = np.zeros((8, 1 << 15), np.int64)
    for part in numba.prange(8):
        for q in range(part * stride, keys.shape[0], 8 * stride):
            for i in range(keys.shape[1]):
                key = np.int64(keys[q, i])
                if key > 0:
                    parts[part, key >> (16 - shift)] += 1
    return parts.sum(0)


@compiled(parallel=True)
def count_above(keys, theta, counts):
    """counts[q]: how many keys of row q exceed theta."""
    for q in numba.prange(keys.shape[0]):
        count = 0
        for column in range(0, keys.shape[1], BLOCK):
            count += count_bits(above(keys, q, column, theta))
        counts[q] = count


@compiled(parallel=True)
def list_above(keys, theta, ends, first, step, kept_keys, queries, items):
    """List (key, query, item) of all that count_above counts, row by row; ends: the running sum of
    its counts."""
    for q in numba.prange(keys.shape[0]):
        place = ends[q - 1] if q else 0
        for column in range(0, keys.shape[1], BLOCK):
            bits = above(keys, q, column, theta)
            while bits:
                c = column + lowest_bit(bits)
                bits &= bits - np.uint64(1)
                kept_keys[place], queries[place], items[place] = keys[q, c], q, first + c * step
                place += 1
