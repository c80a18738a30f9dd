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
def _sum_rows(total, rows, values, matrix, begin, end, d, inside, width):
    """total + the sum over places begin to end, in order, of values[place] x
    matrix[rows[place]]."""
    for place in range(begin, end):
        row = tl.load(rows + place).to(tl.int64)
        total += tl.load(values + place) * tl.load(matrix + row * width + d, mask=inside, other=0.0)
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
    PIECES: tl.constexpr, BLOCK: tl.constexpr,
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
    total = _sum_rows(total, rows, values, matrix, begin, end, d, inside, width)
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
    x_hat = _sum_rows(x_hat, features, values, W_dec, begin, end, d, inside, width)
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
def _fired(values, begin, end, PAIRS: tl.constexpr):
    """How many values of places begin to end are not 0."""
    count = tl.zeros([PAIRS], tl.int32)
    for chunk in range(begin, end, PAIRS):
        n = chunk + tl.arange(0, PAIRS)
        count += (tl.load(values + n, mask=n < end, other=0.0) != 0).to(tl.int32)
    return tl.sum(count, 0)


@triton.jit
def update(
    starts, piece_starts, tokens, values, dvalues, x, G, x_pieces, G_pieces,
    W_enc, b_enc, W_dec, W_enc_first, b_enc_first, W_dec_first,
    W_enc_second, b_enc_second, W_dec_second,
    places, extra_W_enc, extra_b_enc, extra_W_dec, last_step, rows, slack, parts,
    n_features, n_programs, in_width, out_width, stride,
    beta1, rest1, beta2, rest2, size, inverse, epsilon, encoder_size, number, log_beta1, log_beta2,
    EXTRA: tl.constexpr, FROZEN: tl.constexpr, WAIT: tl.constexpr,
    IN: tl.constexpr, OUT: tl.constexpr, PAIRS: tl.constexpr,
):  # fmt: skip
    """Weight gradients, projection, Adam, unit norm and the rounded copy, feature by feature;
    parts [programs, D] receive the sums of db_enc x W_enc, which b_dec's gradient needs.

    starts [F+1], tokens, values, dvalues: the pairs by feature. x_pieces, G_pieces: finished sums
    of pieces where a segment is long. encoder_size: W_enc's step size. FROZEN: W_dec stays as it
    is. places [F]: a row of the extra gradients, or -1. The decoder's gradient without its part
    along the unit row D_f is the sum of z (g - (g . D_f) D_f), and g . D_f is the latent gradient:
    the sum starts at -(sum of z dz) D_f.

    WAIT: features without a gradient stay as they are; last_step [F] holds the number of the step
    in which each last moved, log_beta1 and 2 are to base 2.
    """
    d, e = tl.arange(0, IN), tl.arange(0, OUT)
    in_ok, out_ok = d < in_width, e < out_width
    part = tl.zeros([IN], tl.float32)
    for f in range(tl.program_id(0), n_features, n_programs):
        begin, end = tl.load(starts + f), tl.load(starts + f + 1)
        first, last = tl.load(piece_starts + f), tl.load(piece_starts + f + 1)
        extra = tl.load(places + f).to(tl.int64) if EXTRA else tl.full([], -1, tl.int64)
        moves, decay1, decay2 = True, beta1, beta2
        if WAIT:
            reached = extra >= 0
            if reached:
                reached = tl.load(extra_b_enc + extra) != 0
            moves = reached | (_fired(values, begin, end, PAIRS) > 0)
            gap = number - tl.load(last_step + f).to(tl.float32)
            decay1, decay2 = tl.exp2(gap * log_beta1), tl.exp2(gap * log_beta2)
        if moves:
            if WAIT:
                tl.store(last_step + f, tl.cast(number, tl.int64))
            bias, along = tl.zeros([PAIRS], tl.float64), tl.zeros([PAIRS], tl.float64)
            for chunk in range(begin, end, PAIRS):
                n = chunk + tl.arange(0, PAIRS)
                dz = tl.load(dvalues + n, mask=n < end, other=0.0).to(tl.float64)
                z = tl.load(values + n, mask=n < end, other=0.0).to(tl.float64)
                bias += dz
                along += z * dz
            db_enc = tl.sum(bias, 0).to(tl.float32)
            # What a long segment has in pieces is not added up again.
            begin = tl.where(last > first, end, begin)
            row = tl.cast(f, tl.int64) * in_width
            old = tl.load(W_enc + row + d, mask=in_ok, other=0.0)
            gradient = _sum_pieces(tl.zeros([IN], tl.float32), x_pieces, first, last, d, in_ok,
                                   in_width)  # fmt: skip
            gradient = _sum_rows(gradient, tokens, dvalues, x, begin, end, d, in_ok, in_width)
            part += db_enc * old  # a further loss does not reach b_dec
            if extra >= 0:
                gradient += tl.load(extra_W_enc + extra * in_width + d, mask=in_ok, other=0.0)
                db_enc += tl.load(extra_b_enc + extra)
            new = _adam(old, W_enc_first, W_enc_second, gradient, row + d, in_ok,
                        decay1, rest1, decay2, rest2, encoder_size, inverse, epsilon)  # fmt: skip
            tl.store(W_enc + row + d, new, mask=in_ok)
            new_bias = _adam(tl.load(b_enc + f), b_enc_first, b_enc_second, db_enc, f, True,
                             decay1, rest1, decay2, rest2, size, inverse, epsilon)  # fmt: skip
            tl.store(b_enc + f, new_bias)
            _write_rounded(new, new_bias, rows, slack, tl.cast(f, tl.int64), d, in_width, stride)
            if not FROZEN:
                row = tl.cast(f, tl.int64) * out_width
                unit = tl.load(W_dec + row + e, mask=out_ok, other=0.0)
                gradient = -tl.sum(along, 0).to(tl.float32) * unit
                gradient = _sum_pieces(gradient, G_pieces, first, last, e, out_ok, out_width)
                gradient = _sum_rows(gradient, tokens, values, G, begin, end, e, out_ok, out_width)
                if extra >= 0:
                    gradient += tl.load(extra_W_dec + extra * out_width + e, mask=out_ok, other=0.0)
                    gradient -= tl.sum(gradient * unit, 0) * unit
                new = _adam(unit, W_dec_first, W_dec_second, gradient, row + e, out_ok,
                            decay1, rest1, decay2, rest2, size, inverse, epsilon)  # fmt: skip
                wide = tl.where(out_ok, new, 0.0).to(tl.float64)
                norm = tl.maximum(tl.sqrt(tl.sum(wide * wide, 0)), 1e-20)
                tl.store(W_dec + row + e, new * (1.0 / norm).to(tl.float32), mask=out_ok)
    tl.store(parts + tl.program_id(0).to(tl.int64) * in_width + d, part, mask=in_ok)
