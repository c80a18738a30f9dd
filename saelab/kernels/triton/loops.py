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
def _dot(product, q_slack, i_slack, q, i, q_ok, i_ok, unit, rounding):
    """(dot, how far it may be off, sum of biases), unscaled. unit: what summing may lose, relative
    to the product of the norms; rounding: relative error of a stored product."""
    q_unit = tl.load(q_slack + q * 4, mask=q_ok, other=0.0)[:, None]
    q_lost = tl.load(q_slack + q * 4 + 1, mask=q_ok, other=0.0)[:, None]
    q_norm = tl.load(q_slack + q * 4 + 2, mask=q_ok, other=0.0)[:, None]
    q_bias = tl.load(q_slack + q * 4 + 3, mask=q_ok, other=0.0)[:, None]
    i_unit = tl.load(i_slack + i * 4, mask=i_ok, other=0.0)[None, :]
    i_lost = tl.load(i_slack + i * 4 + 1, mask=i_ok, other=0.0)[None, :]
    i_norm = tl.load(i_slack + i * 4 + 2, mask=i_ok, other=0.0)[None, :]
    i_bias = tl.load(i_slack + i * 4 + 3, mask=i_ok, other=0.0)[None, :]
    # Cauchy-Schwarz on the two rounding residuals, then what summing and storing the product lose;
    # 2^-24: a half-precision subnormal.
    lost = q_lost * (i_norm + i_lost) + q_norm * i_lost + unit * q_norm * i_norm
    lost += tl.abs(product) * rounding + 2.0**-24
    return product * q_unit * i_unit, lost * q_unit * i_unit, q_bias + i_bias


@triton.jit
def _raise(
    keys, items, base, count, theta, keep, ROWS: tl.constexpr, CHUNK: tl.constexpr
):  # fmt: skip
    """Drop all but the `keep` best of each list; theta rises to the best key that is dropped.
    Returns (counts, thetas). Keys are positive, so that their bits are ordered as they are."""
    tl.debug_barrier()  # what other threads have appended is read here
    most = tl.max(count, 0)
    low = tl.zeros([ROWS], tl.int32)
    high = tl.full([ROWS], _INFINITY, tl.int32)
    for _ in range(31):  # bisection: `high` ends as the least cut that `keep` keys or fewer exceed
        middle = low + (high - low) // 2
        above = tl.zeros([ROWS], tl.int32)
        for begin in range(0, most, CHUNK):
            place = begin + tl.arange(0, CHUNK)
            there = place[None, :] < count[:, None]
            key = tl.load(keys + base[:, None] + place[None, :], mask=there, other=0.0)
            above += tl.sum((key.to(tl.int32, bitcast=True) > middle[:, None]).to(tl.int32), 1)
        few = above <= keep
        high = tl.where(few, middle, high)
        low = tl.where(few, low, middle + 1)
    cut = high.to(tl.float32, bitcast=True)
    kept = tl.zeros([ROWS], tl.int32)
    for begin in range(0, most, CHUNK):
        place = begin + tl.arange(0, CHUNK)
        there = place[None, :] < count[:, None]
        key = tl.load(keys + base[:, None] + place[None, :], mask=there, other=0.0)
        item = tl.load(items + base[:, None] + place[None, :], mask=there, other=-1)
        stays = there & (key > cut[:, None])
        spot = base[:, None] + kept[:, None] + tl.cumsum(stays.to(tl.int32), 1) - 1
        tl.debug_barrier()  # the chunk is read before its front is written; later chunks lie behind
        tl.store(keys + spot, key, mask=stays)
        tl.store(items + spot, item, mask=stays)
        kept += tl.sum(stays.to(tl.int32), 1)
    tl.debug_barrier()
    return kept, tl.maximum(theta, cut)


@triton.jit(do_not_specialize=["n_queries", "first", "step"])
def select(
    product,
    boost,
    q_slack,
    i_slack,
    boost_q_slack,
    boost_i_slack,
    floors,
    keeps,
    thetas,
    counts,
    keys,
    items,
    n_queries,
    n_columns,
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
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Append to each query's list the items of this tile whose upper bound exceeds its theta.

    product, boost [Q, T]: finished products of rounded rows; column c is item first + c x step.
    floors [items]: subtracted from the bounds. A list that could overflow keeps its `keeps` best,
    and theta rises to the best that is dropped, so that what is in no list has a bound of at most
    theta.
    """
    q = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    q_ok = q < n_queries
    base = q.to(tl.int64) * ROOM
    theta = tl.load(thetas + q, mask=q_ok, other=float("inf"))
    count = tl.load(counts + q, mask=q_ok, other=0)
    keep = tl.load(keeps + q, mask=q_ok, other=0)
    for begin in range(0, n_columns, COLUMNS):
        if tl.max(count, 0) > ROOM - COLUMNS:
            count, theta = _raise(keys, items, base, count, theta, keep, ROWS, COLUMNS)
        column = begin + tl.arange(0, COLUMNS)
        i_ok = column < n_columns
        i = first + column * step
        ok = q_ok[:, None] & i_ok[None, :]
        place = q[:, None].to(tl.int64) * n_columns + column[None, :]
        p = tl.load(product + place, mask=ok, other=0.0).to(tl.float32)
        dot, lost, bias = _dot(p, q_slack, i_slack, q, i, q_ok, i_ok, unit, rounding)
        size = tl.abs(dot + bias) if SIGNED else dot + bias
        bound = size + lost + (tl.abs(dot) + tl.abs(bias)) * _ROOM
        if BOOSTED:
            h = tl.load(boost + place, mask=ok, other=0.0).to(tl.float32)
            h, off, _ = _dot(
                h, boost_q_slack, boost_i_slack, q, i, q_ok, i_ok, boost_unit, rounding
            )
            bound = bound * (1.0 + beta * (tl.abs(h) + off)) + tl.abs(bound) * _ROOM
        if FLOORS:
            bound += tl.abs(bound) * _ROOM
            bound -= tl.load(floors + i, mask=i_ok, other=0.0)[None, :]
        bound += tl.abs(bound) * _ROOM + _LEAST
        bound = tl.where(bound == bound, bound, float("inf"))  # what overflowed may be anything
        passes = ok & (bound > theta[:, None])
        spot = base[:, None] + count[:, None] + tl.cumsum(passes.to(tl.int32), 1) - 1
        tl.store(keys + spot, bound, mask=passes)
        tl.store(items + spot, tl.broadcast_to(i[None, :], [ROWS, COLUMNS]), mask=passes)
        count += tl.sum(passes.to(tl.int32), 1)
    tl.store(thetas + q, theta, mask=q_ok)
    tl.store(counts + q, count, mask=q_ok)


@triton.jit(do_not_specialize=["n_queries"])
def trim(
    keeps, thetas, counts, keys, items, n_queries,
    ROOM: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """Let each list keep its `keeps` best; theta rises to the best that is dropped."""
    q = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    q_ok = q < n_queries
    theta = tl.load(thetas + q, mask=q_ok, other=float("inf"))
    count = tl.load(counts + q, mask=q_ok, other=0)
    keep = tl.load(keeps + q, mask=q_ok, other=0)
    if tl.max(count - keep, 0) > 0:
        base = q.to(tl.int64) * ROOM
        count, theta = _raise(keys, items, base, count, theta, keep, ROWS, COLUMNS)
        tl.store(thetas + q, theta, mask=q_ok)
        tl.store(counts + q, count, mask=q_ok)
