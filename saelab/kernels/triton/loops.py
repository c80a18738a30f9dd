"""Triton programs: upper bounds from a finished product, lists of candidates, exact dots, sparse
products, sums per feature.

No atomics: every sum has one order. Shapes: B tokens, F features, D width, T features of a tile, N
pairs.
"""

import triton
import triton.language as tl

# Of a half-precision product: relative rounding of the result with room for the float32 arithmetic
# here, and its subnormals.
ROUNDING: tl.constexpr = tl.constexpr(2.0**-10)
SUBNORMAL: tl.constexpr = tl.constexpr(2.0**-24)


@triton.jit
def _margin(product, x_slack, w_slack, row, column, rows_ok, columns_ok, n_rows, n_columns, unit):
    """(dot, how far it may be off), both unscaled. *_slack [3, n]: what undoes the scale, |x - xt|,
    |x| of the scaled row."""
    x_unit = tl.load(x_slack + row, mask=rows_ok, other=0.0)[:, None]
    x_lost = tl.load(x_slack + n_rows + row, mask=rows_ok, other=0.0)[:, None]
    x_norm = tl.load(x_slack + 2 * n_rows + row, mask=rows_ok, other=0.0)[:, None]
    w_unit = tl.load(w_slack + column, mask=columns_ok, other=0.0)[None, :]
    w_lost = tl.load(w_slack + n_columns + column, mask=columns_ok, other=0.0)[None, :]
    w_norm = tl.load(w_slack + 2 * n_columns + column, mask=columns_ok, other=0.0)[None, :]
    # Cauchy-Schwarz on the two rounding residuals, then what summing and storing the product lose.
    lost = x_lost * (w_norm + w_lost) + x_norm * w_lost + unit * x_norm * w_norm
    lost += tl.abs(product) * ROUNDING + SUBNORMAL
    return product * x_unit * w_unit, lost * x_unit * w_unit


@triton.jit
def bounds(
    product,
    boost,
    x_slack,
    w_slack,
    g_slack,
    d_slack,
    bias,
    out,
    n_rows,
    n_columns,
    unit,
    g_unit,
    beta,
    SIGNED: tl.constexpr,
    BOOSTED: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out [B, T]: an upper bound of every score; unit: what summing may lose, relative to the
    product of the norms."""
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    rows_ok, columns_ok = row < n_rows, column < n_columns
    place = row[:, None].to(tl.int64) * n_columns + column[None, :]
    ok = rows_ok[:, None] & columns_ok[None, :]
    p = tl.load(product + place, mask=ok, other=0.0).to(tl.float32)
    b = tl.load(bias + column, mask=columns_ok, other=0.0)[None, :]
    dot, lost = _margin(  # pyright: ignore[reportGeneralTypeIssues] (triton before 3.8)
        p, x_slack, w_slack, row, column, rows_ok, columns_ok, n_rows, n_columns, unit
    )
    size = tl.abs(dot + b) if SIGNED else dot + b
    bound = size + lost + (tl.abs(dot) + tl.abs(b)) * 1e-6
    if BOOSTED:
        h = tl.load(boost + place, mask=ok, other=0.0).to(tl.float32)
        dot, lost = _margin(
            h, g_slack, d_slack, row, column, rows_ok, columns_ok, n_rows, n_columns, g_unit
        )
        bound = bound * (1.0 + beta * (tl.abs(dot) + lost)) + tl.abs(bound) * 1e-6
    tl.store(out + place, bound + tl.abs(bound) * 1e-6 + 1e-30, mask=ok)


@triton.jit
def append(
    bound,
    thetas,
    counts,
    keys,
    items,
    first,
    step,
    n_columns,
    ROOM: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """Append to each row's list what exceeds its threshold; a count above ROOM shows that the list
    was too short."""
    row = tl.program_id(0).to(tl.int64)
    theta, count = tl.load(thetas + row), tl.load(counts + row)
    for begin in range(0, n_columns, COLUMNS):
        column = begin + tl.arange(0, COLUMNS)
        value = tl.load(bound + row * n_columns + column, mask=column < n_columns, other=-1.0)
        passing = (value > theta) & (column < n_columns)
        place = count + tl.cumsum(passing.to(tl.int32), 0) - 1
        stored = passing & (place < ROOM)
        tl.store(keys + row * ROOM + place, value, mask=stored)
        tl.store(items + row * ROOM + place, (first + column * step).to(tl.int64), mask=stored)
        count += tl.sum(passing.to(tl.int32), 0)
    tl.store(counts + row, count)


@triton.jit
def exact_dots(
    A, W, tokens, features, out, n_pairs, width, PAIRS: tl.constexpr, BLOCK: tl.constexpr
):
    """A[token] . W[feature] at every pair, summed in float64."""
    n = tl.program_id(0).to(tl.int64) * PAIRS + tl.arange(0, PAIRS)
    there = n < n_pairs
    token = tl.load(tokens + n, mask=there, other=0)
    feature = tl.load(features + n, mask=there, other=0)
    total = tl.zeros([PAIRS, BLOCK], tl.float64)
    for begin in range(0, width, BLOCK):
        d = (begin + tl.arange(0, BLOCK))[None, :]
        inside = there[:, None] & (d < width)
        a = tl.load(A + token[:, None] * width + d, mask=inside, other=0.0).to(tl.float64)
        w = tl.load(W + feature[:, None] * width + d, mask=inside, other=0.0).to(tl.float64)
        total += a * w
    tl.store(out + n, tl.sum(total, 1), mask=there)


@triton.jit
def segment_sums(order, starts, rows, values, matrix, out, width, BLOCK: tl.constexpr):
    """out[s] = sum over the pairs n of segment s, in order, of values[n] x matrix[rows[n]]."""
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float32)
    for place in range(tl.load(starts + s), tl.load(starts + s + 1)):
        n = tl.load(order + place)
        row = tl.load(rows + n).to(tl.int64)
        total += tl.load(values + n) * tl.load(matrix + row * width + d, mask=d < width, other=0.0)
    tl.store(out + s * width + d, total, mask=d < width)


@triton.jit
def segment_counts(order, starts, values, sums, fired):
    """Per segment the sum of its values, in order, and how many are not 0."""
    s = tl.program_id(0).to(tl.int64)
    total, count = 0.0, 0
    for place in range(tl.load(starts + s), tl.load(starts + s + 1)):
        value = tl.load(values + tl.load(order + place))
        total += value
        count += (value != 0).to(tl.int32)
    tl.store(sums + s, total)
    tl.store(fired + s, count)
