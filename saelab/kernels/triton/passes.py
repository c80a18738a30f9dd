"""Triton programs over a finished code: decoding with its gradients, sums by segment, the update of
every weight.

No atomics: every sum has one order. Shapes: B tokens, F features, D width in, E width out, N pairs,
S segments, P pieces of long segments.
"""

# A sum of a block is a number here; Triton's own types leave open what it is.
# pyright: reportArgumentType=false, reportOperatorIssue=false

import triton
import triton.language as tl

from saelab.kernels.triton.loops import _write_rounded


@triton.jit
def _sum_rows(total, rows, values, matrix, begin, end, d, inside, width, TOGETHER: tl.constexpr):
    """total + the sum over places begin to end, in order, of values[place] x
    matrix[rows[place]]; so many rows are under way together."""
    for first in range(begin, end, TOGETHER):
        place = first + tl.arange(0, TOGETHER)
        there = place < end
        row = tl.load(rows + place, mask=there, other=0).to(tl.int64)
        value = tl.load(values + place, mask=there, other=0.0)
        which = there[:, None] & inside[None, :]
        read = tl.load(matrix + row[:, None] * width + d[None, :], mask=which, other=0.0)
        total += tl.sum(value[:, None] * read, 0)
    return total


@triton.jit
def _sum_pieces(total, pieces, begin, end, d, inside, width):
    """total + the sum over pieces begin to end, in order."""
    for piece in range(begin, end):
        row = tl.cast(piece, tl.int64) * width
        total += tl.load(pieces + row + d, mask=inside, other=0.0)
    return total


@triton.jit
def segment_sums(
    begins, ends, piece_starts, pieces, rows, values, matrix, out, width,
    PIECES: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """out[s] = sum over places begins[s] to ends[s], in order, of values[place] x
    matrix[rows[place]].

    PIECES: where a segment has pieces (piece_starts [S+1]), from their finished sums.
    """
    s = tl.program_id(0).to(tl.int64)
    d = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = d < width
    total = tl.zeros([BLOCK], tl.float32)
    begin, end = tl.load(begins + s), tl.load(ends + s)
    if PIECES:
        first, last = tl.load(piece_starts + s), tl.load(piece_starts + s + 1)
        total = _sum_pieces(total, pieces, first, last, d, inside, width)
        begin = tl.where(last > first, end, begin)
    total = _sum_rows(total, rows, values, matrix, begin, end, d, inside, width, TOGETHER)
    tl.store(out + s * width + d, total, mask=inside)


@triton.jit
def segment_counts(starts, values, sums, fired, BLOCK: tl.constexpr):
    """Per segment of places the sum of its values, and how many are not 0."""
    s = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(starts + s), tl.load(starts + s + 1)
    total = tl.zeros([BLOCK], tl.float64)
    count = tl.zeros([BLOCK], tl.int32)
    for first in range(begin, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        value = tl.load(values + place, mask=place < end, other=0.0)
        total += value.to(tl.float64)
        count += (value != 0).to(tl.int32)
    tl.store(sums + s, tl.sum(total, 0).to(tl.float32))
    tl.store(fired + s, tl.sum(count, 0).to(tl.int64))


@triton.jit
def decode_and_grad(
    starts, features, values, W_dec, b_dec, target, G, dvalues, errors, scale, width,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """G = scale (x_hat - target), its dots with the rows that made x_hat (0 where the value is 0),
    and |x_hat - target|^2: one token a program, whose rows are read again while they are near."""
    b = tl.program_id(0).to(tl.int64)
    d = tl.arange(0, BLOCK)
    inside = d < width
    begin, end = tl.load(starts + b), tl.load(starts + b + 1)
    x_hat = tl.load(b_dec + d, mask=inside, other=0.0)
    # What a thread holds of G leaves no room for several rows.
    x_hat = _sum_rows(x_hat, features, values, W_dec, begin, end, d, inside, width, 1)
    missed = x_hat - tl.load(target + b * width + d, mask=inside, other=0.0)
    wide = missed.to(tl.float64)
    tl.store(errors + b, tl.sum(wide * wide, 0))
    g = scale * missed
    tl.store(G + b * width + d, g, mask=inside)
    for place in range(begin, end):
        row = tl.load(features + place) * width
        dot = tl.sum(g * tl.load(W_dec + row + d, mask=inside, other=0.0), 0)
        tl.store(dvalues + place, tl.where(tl.load(values + place) != 0, dot, 0.0))


@triton.jit
def _adam(weight, first, second, gradient, place, inside, beta1, rest1, beta2, rest2, size,
          inverse, epsilon):  # fmt: skip
    """One Adam step of a row, whose moments are stored; returns the new weights, which are not.
    inverse: 1 / sqrt(bias correction of the second moment)."""
    m = tl.load(first + place, mask=inside, other=0.0) * beta1 + rest1 * gradient
    v = tl.load(second + place, mask=inside, other=0.0) * beta2 + rest2 * gradient * gradient
    tl.store(first + place, m, mask=inside)
    tl.store(second + place, v, mask=inside)
    return weight - size * m / (tl.sqrt_rn(v) * inverse + epsilon)


@triton.jit
def pair_sums(starts, values, dvalues, db, along, fired, BLOCK: tl.constexpr):
    """Per feature the sum of its latent gradients, that of value x gradient, and how many values
    are not 0."""
    f = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(starts + f), tl.load(starts + f + 1)
    bias, product = tl.zeros([BLOCK], tl.float64), tl.zeros([BLOCK], tl.float64)
    count = tl.zeros([BLOCK], tl.int32)
    for first in range(begin, end, BLOCK):
        place = first + tl.arange(0, BLOCK)
        dz = tl.load(dvalues + place, mask=place < end, other=0.0).to(tl.float64)
        z = tl.load(values + place, mask=place < end, other=0.0)
        bias += dz
        product += z.to(tl.float64) * dz
        count += (z != 0).to(tl.int32)
    tl.store(db + f, tl.sum(bias, 0).to(tl.float32))
    tl.store(along + f, tl.sum(product, 0).to(tl.float32))
    tl.store(fired + f, tl.sum(count, 0))


@triton.jit
def _moves(f, fired, extra, extra_b, EXTRA: tl.constexpr, WAIT: tl.constexpr):
    """(whether feature f moves, its row of the extra gradients or -1, what these add to its
    gradient of b_enc)."""
    row = tl.load(extra + f).to(tl.int64) if EXTRA else tl.full([], -1, tl.int64)
    further = tl.load(extra_b + row, mask=row >= 0, other=0.0)
    moves = True
    if WAIT:
        moves = (further != 0) | (tl.load(fired + f) > 0)
    return moves, row, further


@triton.jit
def _decays(last_step, number, beta1, beta2, log_beta1, log_beta2, WAIT: tl.constexpr):
    """By how much the moments of a feature decay that last moved in step last_step."""
    if WAIT:
        gap = number - tl.load(last_step).to(tl.float32)
        beta1, beta2 = tl.exp2(gap * log_beta1), tl.exp2(gap * log_beta2)
    return beta1, beta2


@triton.jit
def _gradient(
    total, starts, piece_starts, pieces, tokens, values, matrix, f, d, inside, width,
    TOGETHER: tl.constexpr,
):  # fmt: skip
    """total + the sum over feature f's pairs of value x matrix[token]."""
    begin, end = tl.load(starts + f), tl.load(starts + f + 1)
    first, last = tl.load(piece_starts + f), tl.load(piece_starts + f + 1)
    total = _sum_pieces(total, pieces, first, last, d, inside, width)
    # What a long segment has in pieces is not added up again.
    begin = tl.where(last > first, end, begin)
    return _sum_rows(total, tokens, values, matrix, begin, end, d, inside, width, TOGETHER)


@triton.jit
def update_encoder(
    starts, piece_starts, tokens, dvalues, x, pieces, db, fired,
    W, b, W_first, b_first, W_second, b_second, extra, extra_b, extra_W, last_step, rows, slack,
    width, stride, W_size,
    beta1, rest1, beta2, rest2, size, inverse, epsilon, number, log_beta1, log_beta2,
    EXTRA: tl.constexpr, WAIT: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Gradient and Adam step of a feature's row of W_enc and its bias, and the rounded copy.

    starts [F+1], tokens, dvalues: the pairs by feature. pieces: finished sums of pieces where a
    segment is long. db, fired [F]: of `pair_sums`. extra [F]: a row of the extra gradients, or -1.
    W_size: W_enc's step size.

    WAIT: a feature without a gradient stays as it is; last_step [F] holds the number of the step
    in which each last moved, and is written here; log_beta1 and 2 are to base 2.
    """
    f = tl.program_id(0).to(tl.int64)
    moves, row, further = _moves(f, fired, extra, extra_b, EXTRA, WAIT)
    if moves:
        d = tl.arange(0, BLOCK)
        inside = d < width
        gradient = _gradient(tl.zeros([BLOCK], tl.float32), starts, piece_starts, pieces, tokens,
                             dvalues, x, f, d, inside, width, TOGETHER)  # fmt: skip
        if row >= 0:
            gradient += tl.load(extra_W + row * width + d, mask=inside, other=0.0)
        decay1, decay2 = _decays(last_step + f, number, beta1, beta2, log_beta1, log_beta2, WAIT)
        if WAIT:
            tl.store(last_step + f, tl.cast(number, tl.int64))
        place = f * width + d
        old = tl.load(W + place, mask=inside, other=0.0)
        new = _adam(old, W_first, W_second, gradient, place, inside,
                    decay1, rest1, decay2, rest2, W_size, inverse, epsilon)  # fmt: skip
        tl.store(W + place, new, mask=inside)
        new_b = _adam(tl.load(b + f), b_first, b_second, tl.load(db + f) + further, f, True,
                      decay1, rest1, decay2, rest2, size, inverse, epsilon)  # fmt: skip
        tl.store(b + f, new_b)
        _write_rounded(new, new_b, rows, slack, f, d, width, stride)


@triton.jit
def update_decoder(
    starts, piece_starts, tokens, values, G, pieces, along, fired,
    W, W_first, W_second, extra, extra_b, extra_W, last_step, width,
    beta1, rest1, beta2, rest2, size, inverse, epsilon, number, log_beta1, log_beta2,
    EXTRA: tl.constexpr, WAIT: tl.constexpr, BLOCK: tl.constexpr, TOGETHER: tl.constexpr,
):  # fmt: skip
    """Gradient without its part along the row, Adam step and unit norm of a feature's row of W_dec;
    before `update_encoder`, which says in last_step that the feature has moved.

    The gradient without its part along the unit row D_f is the sum of z (g - (g . D_f) D_f), and
    g . D_f is the latent gradient: `along`, the sum of z dz, times D_f is taken away.
    """
    f = tl.program_id(0).to(tl.int64)
    moves, row, _ = _moves(f, fired, extra, extra_b, EXTRA, WAIT)
    if moves:
        e = tl.arange(0, BLOCK)
        inside = e < width
        place = f * width + e
        gradient = _gradient(tl.zeros([BLOCK], tl.float32), starts, piece_starts, pieces, tokens,
                             values, G, f, e, inside, width, TOGETHER)  # fmt: skip
        unit = tl.load(W + place, mask=inside, other=0.0)
        gradient -= tl.load(along + f) * unit
        if row >= 0:
            gradient += tl.load(extra_W + row * width + e, mask=inside, other=0.0)
            gradient -= tl.sum(gradient * unit, 0) * unit
        decay1, decay2 = _decays(last_step + f, number, beta1, beta2, log_beta1, log_beta2, WAIT)
        new = _adam(unit, W_first, W_second, gradient, place, inside,
                    decay1, rest1, decay2, rest2, size, inverse, epsilon)  # fmt: skip
        wide = tl.where(inside, new, 0.0).to(tl.float64)
        norm = tl.maximum(tl.sqrt(tl.sum(wide * wide, 0)), 1e-20)
        tl.store(W + place, new * (1.0 / norm).to(tl.float32), mask=inside)
