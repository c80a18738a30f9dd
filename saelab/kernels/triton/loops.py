"""Triton programs that screen: rounding with what it loses, candidates of a finished product.

Shapes: Q queries (tokens, or features under a feature budget), T items of a tile (the other of the
two), D width.
"""

# A sum or a greatest of a block is a number here; Triton's own types leave open what it is.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import triton
import triton.language as tl

# Of a float32 number: room for the float32 arithmetic around it, and for the smallest numbers.
_ROOM: tl.constexpr = tl.constexpr(1e-6)
_LEAST: tl.constexpr = tl.constexpr(1e-30)
_UP: tl.constexpr = tl.constexpr(1 + 2.0**-20)
_INFINITY: tl.constexpr = tl.constexpr(0x7F800000)  # as the bits of a float32


@triton.jit
def _write_rounded(x_D, bias, rows, slack, row, d, width, stride):
    """A row scaled by a power of two to a norm in [1/2, 1) and rounded, into `rows`; what undoes
    the scale, |x - xt|, |x| (both scaled) and the bias, into `slack`."""
    wide = x_D.to(tl.float64)
    norm = tl.sqrt(tl.sum(wide * wide, 0))
    # The power of two comes from the exponent's bits, so that it is exact. Numbers that are not
    # finite have none: the cap keeps the bits sound, and the norm tells.
    exponent = (norm.to(tl.int64, bitcast=True) >> 52) - 1022
    exponent = tl.minimum(tl.where(norm > 0, exponent, 0), 200)
    scale = ((1023 - exponent) << 52).to(tl.float64, bitcast=True)
    unit = ((1023 + exponent) << 52).to(tl.float64, bitcast=True)
    scaled = wide * scale
    near = scaled.to(rows.dtype.element_ty)
    missed = scaled - near.to(tl.float64)
    lost = tl.sqrt(tl.sum(missed * missed, 0))
    tl.store(rows + row * stride + d, near, mask=d < width)
    tl.store(slack + row * 4, unit.to(tl.float32))
    tl.store(slack + row * 4 + 1, (lost * _UP).to(tl.float32))
    tl.store(slack + row * 4 + 2, (norm * scale * _UP).to(tl.float32))
    tl.store(slack + row * 4 + 3, bias)


@triton.jit
def round_rows(source, bias, rows, slack, width, stride, BLOCK: tl.constexpr):
    """Round every row of source [n, D] for a product; rows has rows of `stride` numbers."""
    row = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    x_D = tl.load(source + row * width + d, mask=d < width, other=0.0)
    _write_rounded(x_D, tl.load(bias + row), rows, slack, row, d, width, stride)


@triton.jit
def _dot(product, q_slack, i_slack, apart, ok, unit, rounding):
    """(dot, how far it may be off, sum of biases), unscaled, of one query with items whose parts of
    slack lie `apart`. unit: what summing may lose, relative to the product of the norms; rounding:
    relative error of a stored product."""
    q_unit, q_lost = tl.load(q_slack), tl.load(q_slack + 1)
    q_norm, q_bias = tl.load(q_slack + 2), tl.load(q_slack + 3)
    i_unit = tl.load(i_slack, mask=ok, other=0.0)
    i_lost = tl.load(i_slack + apart, mask=ok, other=0.0)
    i_norm = tl.load(i_slack + 2 * apart, mask=ok, other=0.0)
    i_bias = tl.load(i_slack + 3 * apart, mask=ok, other=0.0)
    # Cauchy-Schwarz on the two rounding residuals, then what summing and storing the product lose;
    # 2^-24: a half-precision subnormal.
    lost = i_norm * (q_lost + unit * q_norm) + i_lost * (q_lost + q_norm)
    lost += tl.abs(product) * rounding + 2.0**-24
    both = q_unit * i_unit
    return product * both, lost * both, q_bias + i_bias


@triton.jit
def _raise(keys, items, base, count, theta, keep, CHUNK: tl.constexpr):
    """Drop all but the `keep` best of a list; theta rises to the best key that is dropped. Returns
    (count, theta). Keys are positive, so that their bits are ordered as they are."""
    tl.debug_barrier()  # what other threads have appended is read here
    low = tl.full([], 0, tl.int32)
    high = tl.full([], _INFINITY, tl.int32)
    for _ in range(31):  # bisection: `high` ends as the least cut that `keep` keys or fewer exceed
        middle = low + (high - low) // 2
        above = tl.zeros([CHUNK], tl.int32)
        for begin in range(0, count, CHUNK):
            place = begin + tl.arange(0, CHUNK)
            key = tl.load(keys + base + place, mask=place < count, other=0.0)
            above += (key.to(tl.int32, bitcast=True) > middle).to(tl.int32)
        few = tl.sum(above, 0) <= keep
        high = tl.where(few, middle, high)
        low = tl.where(few, low, middle + 1)
    cut = high.to(tl.float32, bitcast=True)
    kept = tl.full([], 0, tl.int32)
    for begin in range(0, count, CHUNK):
        place = begin + tl.arange(0, CHUNK)
        there = place < count
        key = tl.load(keys + base + place, mask=there, other=0.0)
        item = tl.load(items + base + place, mask=there, other=-1)
        stays = there & (key > cut)
        spot = tl.cumsum(stays.to(tl.int32), 0)
        tl.debug_barrier()  # the chunk is read before its front is written; later chunks lie behind
        tl.store(keys + (base + kept - 1) + spot, key, mask=stays)
        tl.store(items + (base + kept - 1) + spot, item, mask=stays)
        kept += tl.sum(stays.to(tl.int32), 0)
    tl.debug_barrier()
    return kept, tl.maximum(theta, cut)


@triton.jit(do_not_specialize=["first", "step"])
def select(
    product,
    boost,
    q_slack,
    i_slack,
    boost_q_slack,
    boost_i_slack,
    keeps,
    thetas,
    counts,
    keys,
    items,
    n_columns,
    apart,
    at,
    first,
    step,
    unit,
    boost_unit,
    rounding,
    beta,
    SIGNED: tl.constexpr,
    BOOSTED: tl.constexpr,
    FLOORS: tl.constexpr,
    ROOM: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Append to each query's list the items of this tile whose upper bound exceeds its theta.

    product, boost [Q, T]: finished products of rounded rows; column c is item first + c x step, and
    its slack lies at i_slack + at + c and so many times `apart` further. FLOORS: the fifth part of
    slack is subtracted from the bounds. A list that could overflow keeps its `keeps` best, and
    theta rises to the best that is dropped, so that what is in no list has a bound of at most
    theta.
    """
    q = tl.program_id(0).to(tl.int64)
    base = q * ROOM
    theta, count, keep = tl.load(thetas + q), tl.load(counts + q), tl.load(keeps + q)
    for begin in range(0, n_columns, COLUMNS):
        if count > ROOM - COLUMNS:
            count, theta = _raise(keys, items, base, count, theta, keep, COLUMNS)
        column = begin + tl.arange(0, COLUMNS)
        ok = column < n_columns
        p = tl.load(product + q * n_columns + column, mask=ok, other=0.0).to(tl.float32)
        slack = at + column
        dot, lost, bias = _dot(p, q_slack + q * 4, i_slack + slack, apart, ok, unit, rounding)
        size = tl.abs(dot + bias) if SIGNED else dot + bias
        bound = size + lost + (tl.abs(dot) + tl.abs(bias)) * _ROOM
        if BOOSTED:
            h = tl.load(boost + q * n_columns + column, mask=ok, other=0.0).to(tl.float32)
            h, off, _ = _dot(
                h, boost_q_slack + q * 4, boost_i_slack + slack, apart, ok, boost_unit, rounding
            )
            bound = bound * (1.0 + beta * (tl.abs(h) + off)) + tl.abs(bound) * _ROOM
        if FLOORS:
            bound += tl.abs(bound) * _ROOM
            bound -= tl.load(i_slack + 4 * apart + slack, mask=ok, other=0.0)
        bound += tl.abs(bound) * _ROOM + _LEAST
        bound = tl.where(bound == bound, bound, float("inf"))  # what overflowed may be anything
        passes = ok & (bound > theta)
        n_passed = tl.sum(passes.to(tl.int32), 0)
        if n_passed > 0:
            spot = tl.cumsum(passes.to(tl.int32), 0)
            tl.store(keys + (base + count - 1) + spot, bound, mask=passes)
            tl.store(items + (base + count - 1) + spot, first + column * step, mask=passes)
            count += n_passed
    tl.store(thetas + q, theta)
    tl.store(counts + q, count)


@triton.jit
def trim(keeps, thetas, counts, keys, items, ROOM: tl.constexpr, COLUMNS: tl.constexpr):
    """Let each list keep its `keeps` best; theta rises to the best that is dropped."""
    q = tl.program_id(0).to(tl.int64)
    theta, count, keep = tl.load(thetas + q), tl.load(counts + q), tl.load(keeps + q)
    if count > keep:
        count, theta = _raise(keys, items, q * ROOM, count, theta, keep, COLUMNS)
        tl.store(thetas + q, theta)
        tl.store(counts + q, count)
