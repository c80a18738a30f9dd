"""Loops that prepare a low-precision product so that it yields upper bounds of the exact
pre-activations.

u = x . w + b. With xt, wt the rounded rows, Cauchy-Schwarz gives
x . w - xt . wt <= |x - xt| |wt| + |x| |w - wt|, and summing K terms in float32, in any order, errs
by at most s (|xt| |wt| + |b|) with s = SLACK K 2^-24, with room for the columns themselves. Four
columns put all that into the product:

    [xt, |x - xt|, |x|, 1, 1] . [wt, |wt|, |w - wt| + s |wt|, b1, b - b1 + s |b| + TINY]

Every entry but the rounded numbers themselves is rounded up. TINY exceeds what is lost where
products underflow.

Signed and boosted scores have no such columns; `combine` adds the same slack to each entry of the
finished product instead.
"""

import numba
import numpy as np
from numba import types
from numba.extending import overload

from saelab.kernels.cpu.jit import compiled
from saelab.kernels.cpu.vector import as_bits, as_float

COLUMNS = 4
SLACK = 4.0
TINY = 2.0**-100
_UP = 1.0 + 2.0**-20  # float32 rounding of a float64 norm


def _nearest(out, number):
    """number rounded to the nearest that `out` can hold, as float32; subnormals become 0, which the
    products flush."""


@overload(_nearest)
def _nearest_overload(out, number):
    if out.dtype == types.int16:

        def nearest(out, number):
            bits = as_bits(number)
            rounded = as_float((bits + 0x7FFF + ((bits >> 16) & 1)) & ~0xFFFF)
            return rounded if abs(rounded) >= np.float32(2.0**-126) else np.float32(0.0)

        return nearest
    return lambda out, number: number


def _upward(out, number):
    """A number >= 0, or TINY if that is more, rounded up to one that `out` can hold, as float32."""


@overload(_upward)
def _upward_overload(out, number):
    if out.dtype == types.int16:
        return lambda out, number: as_float(
            (as_bits(np.float32(max(number, TINY) * _UP)) + 0xFFFF) & ~0xFFFF
        )
    return lambda out, number: np.float32(max(number, TINY) * _UP)


def _put(out, i, j, number):
    """Store a float32 number that `out` can hold exactly."""


@overload(_put)
def _put_overload(out, i, j, number):
    if out.dtype == types.int16:

        def put(out, i, j, number):
            out[i, j] = as_bits(number) >> 16

        return put

    def put_float(out, i, j, number):
        out[i, j] = number

    return put_float


@compiled(reorder=True)
def _round(source, i, out, j):
    """Write row i of source, rounded, to row j of out; return the norms |x|, |xt|, |x - xt|."""
    whole = rounded = lost = 0.0
    for d in range(source.shape[1]):
        number = source[i, d]
        near = _nearest(out, number)
        _put(out, j, d, near)
        whole += np.float64(number) * np.float64(number)
        rounded += np.float64(near) * np.float64(near)
        lost += (np.float64(number) - np.float64(near)) ** 2
    return np.sqrt(whole), np.sqrt(rounded), np.sqrt(lost)


@compiled(parallel=True)
def bound_x(x, out, bare, slack, norms):
    """Rounded rows of x with their columns; `bare` leaves the two norms out. slack [3, rows]: |x -
    xt|, |x|, 1."""
    width = x.shape[1]
    one = np.float32(1.0)
    for i in numba.prange(x.shape[0]):
        whole, rounded, lost = _round(x, i, out, i)
        norms[i] = max(whole, rounded)
        slack[0, i], slack[1, i], slack[2, i] = _upward(out, lost), _upward(out, whole), one
        _put(out, i, width, np.float32(0.0) if bare else slack[0, i])
        _put(out, i, width + 1, np.float32(0.0) if bare else slack[1, i])
        _put(out, i, width + 2, one)
        _put(out, i, width + 3, np.float32(0.0) if bare else one)


@compiled()
def bound_w_row(W, b, f, out, j):
    """Row f of W, rounded, with its columns, into row j of out. Returns (|w|, and the slacks |wt|,
    |w - wt| + s |wt|, b's).
    """
    width = W.shape[1]
    relative = SLACK * out.shape[1] * 2.0**-24
    whole, rounded, lost = _round(W, f, out, j)
    head = _nearest(out, b[f])
    rest = max(np.float64(b[f]) - np.float64(head), 0.0) + relative * abs(b[f]) + TINY
    either = abs(np.float64(b[f]) - np.float64(head)) + relative * abs(b[f]) + TINY
    norm, error = _upward(out, rounded), _upward(out, lost + relative * rounded)
    _put(out, j, width, norm)
    _put(out, j, width + 1, error)
    _put(out, j, width + 2, head)
    _put(out, j, width + 3, _upward(out, rest))
    return max(whole, rounded), norm, error, np.float32(either * _UP)


@compiled(parallel=True)
def bound_w(W, b, first, step, n_rows, out, slack, norms):
    """Rows first, first + step, ... of W with their columns, then rows of zeros. slack [3, rows]:
    |wt|, |w - wt| + s |wt|, b's.
    """
    for j in numba.prange(out.shape[0]):
        if j < n_rows:
            norms[j], slack[0, j], slack[1, j], slack[2, j] = bound_w_row(
                W, b, first + j * step, out, j
            )
        else:
            out[j] = 0
            norms[j] = slack[0, j] = slack[1, j] = slack[2, j] = 0.0


@compiled()
def _size(key, signed, shift):
    """An upper bound of a number, or of its size, whose rounded product has this key."""
    magnitude = key & (0x7FFFFFFF >> shift)
    if key >= 0 or signed:
        return as_float((magnitude + 1) << shift)
    return -as_float((max(magnitude, 1) - 1) << shift)


@compiled(parallel=True, reorder=True)
def combine(keys, boosts, left, right, boost_left, boost_right, offset, signed, beta, shift):
    """Turn a finished product into keys of upper bounds, in place.

    keys[q, i]: bits of the product; signed: of a product without columns, to which the slack
    left[:, q] . right[:, i] is added. beta > 0: times 1 + beta |boost|, with boosts[q, i] another
    product without columns. offset [items] is subtracted at the end.
    """
    for q in numba.prange(keys.shape[0]):
        for i in range(keys.shape[1]):
            bound = _size(np.int64(keys[q, i]), signed, shift)
            if signed:
                bound += (
                    left[0, q] * right[0, i] + left[1, q] * right[1, i] + left[2, q] * right[2, i]
                )
            if beta != 0.0:
                boost = _size(np.int64(boosts[q, i]), True, shift)
                boost += boost_left[0, q] * boost_right[0, i] + boost_left[1, q] * boost_right[1, i]
                bound *= np.float32(1.0) + np.float32(beta) * boost
            if bound > 0:
                bound *= np.float32(1.0 + 2.0**-16)
            keys[q, i] = as_bits(bound - offset[i]) >> shift
