"""Loops over chosen pairs: decode, dots, and sums per feature. Every sum has one order, whatever
the number of threads.
"""

import numba
import numpy as np

from saelab.kernels.cpu.jit import compiled

CLASSES, DEAL = (
    64,
    16,
)  # features are dealt out in turn, 16 at a time, because frequent ones tend to be neighbours


@compiled()
def sort_by_feature(features_N, n_features):
    """(order [N]: pair numbers by feature, then by token; starts [F+1]): a counting sort."""
    starts = np.zeros(n_features + 1, np.int64)
    for feature in features_N:
        starts[feature + 1] += 1
    for feature in range(n_features):
        starts[feature + 1] += starts[feature]
    places = starts[:-1].copy()
    order = np.empty(len(features_N), np.int64)
    for n in range(len(features_N)):
        feature = features_N[n]
        order[places[feature]] = n
        places[feature] += 1
    return order, starts


@compiled()
def tokens_of(starts):
    """[N] int64: the token of each pair."""
    tokens = np.empty(starts[-1], np.int64)
    for b in range(len(starts) - 1):
        tokens[starts[b] : starts[b + 1]] = b
    return tokens


@compiled()
def add_row(out, weight, matrix, row):
    """out += weight * matrix[row]."""
    for d in range(len(out)):
        out[d] += weight * matrix[row, d]


@compiled()
def add_rows(out, w0, w1, w2, w3, matrix, r0, r1, r2, r3):
    """Four times add_row, in that order, reading and writing `out` once."""
    for d in range(len(out)):
        total = out[d] + w0 * matrix[r0, d]
        total += w1 * matrix[r1, d]
        total += w2 * matrix[r2, d]
        out[d] = total + w3 * matrix[r3, d]


@compiled()
def add_all(out, weights, matrix, rows):
    """out += sum of weights[i] * matrix[rows[i]], in order."""
    whole = len(rows) // 4 * 4
    for i in range(0, whole, 4):
        add_rows(out, weights[i], weights[i + 1], weights[i + 2], weights[i + 3], matrix,
                 rows[i], rows[i + 1], rows[i + 2], rows[i + 3])  # fmt: skip
    for i in range(whole, len(rows)):
        add_row(out, weights[i], matrix, rows[i])


@compiled(reorder=True)
def dot32(left, i, right, j):
    """left[i] . right[j] summed in float32 lanes."""
    total = np.float32(0.0)
    for d in range(left.shape[1]):
        total += left[i, d] * right[j, d]
    return total


@compiled(parallel=True)
def spmm(starts, features_N, values_N, W_FD, out_BD):
    """out[b] = sum of values x W[feature] over b's pairs."""
    for b in numba.prange(len(starts) - 1):
        pairs = slice(starts[b], starts[b + 1])
        out_BD[b] = 0
        add_all(out_BD[b], values_N[pairs], W_FD, features_N[pairs])


@compiled(parallel=True)
def spmm_t(order_N, starts, tokens_N, values_N, G_BD, out_FD):
    """out[f] = sum of values x G[token] over f's pairs, in order of tokens."""
    n_features = len(starts) - 1
    for c in numba.prange(CLASSES):
        for first in range(c * DEAL, n_features, CLASSES * DEAL):
            for f in range(first, min(first + DEAL, n_features)):
                pairs = order_N[starts[f] : starts[f + 1]]
                out_FD[f] = 0
                add_all(out_FD[f], values_N[pairs], G_BD, tokens_N[pairs])


@compiled(parallel=True)
def sddmm(starts, features_N, A_BD, W_FD, out_N):
    """A[token] . W[feature] at every pair."""
    for b in numba.prange(len(starts) - 1):
        for n in range(starts[b], starts[b + 1]):
            out_N[n] = dot32(A_BD, b, W_FD, features_N[n])


@compiled()
def column_sums(features_N, values_N, n_features):
    """Per feature the sum of its values, in order of tokens, and how many are not 0."""
    sums, fired = np.zeros(n_features), np.zeros(n_features, np.int64)
    for n in range(len(features_N)):
        sums[features_N[n]] += values_N[n]
        fired[features_N[n]] += values_N[n] != 0
    return sums.astype(np.float32), fired
