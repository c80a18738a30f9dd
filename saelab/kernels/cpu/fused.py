"""Loops of a whole training step: decoding with its gradients, and the update of every weight in
one pass over the features.

Shapes: B tokens, F features, D width in, E width out, N pairs.
"""

import numba
import numpy as np

from saelab.kernels.cpu.jit import compiled
from saelab.kernels.cpu.screen.bounds import bound_w_row
from saelab.kernels.cpu.sparse import CLASSES, DEAL, add_all, dot32


@compiled(parallel=True)
def decode_and_grad(
    starts, features_N, values_N, W_dec_FE, b_dec_E, target_BE, scale, G_BE, dvalues_N, errors_B
):
    """G = scale (x_hat - target), its dots with the rows that made x_hat (0 where the value is 0),
    and |x_hat - target|^2."""
    for b in numba.prange(len(starts) - 1):
        pairs = slice(starts[b], starts[b + 1])
        out = G_BE[b]
        out[:] = b_dec_E
        add_all(out, values_N[pairs], W_dec_FE, features_N[pairs])
        error = 0.0
        for e in range(len(out)):
            missed = out[e] - target_BE[b, e]
            error += np.float64(missed) * np.float64(missed)
            out[e] = scale * missed
        errors_B[b] = error
        for n in range(starts[b], starts[b + 1]):
            dvalues_N[n] = (
                dot32(G_BE, b, W_dec_FE, features_N[n]) if values_N[n] != 0 else np.float32(0.0)
            )


@compiled()
def adam_row(weights, first, second, gradient, rates):
    """One Adam step of a row.

    rates: beta1, 1 - beta1, beta2, 1 - beta2, step size, 1 / sqrt(bias correction of the second
    moment), epsilon.
    """
    for d in range(len(weights)):
        g = gradient[d]
        m = rates[0] * first[d] + rates[1] * g
        v = rates[2] * second[d] + rates[3] * g * g
        first[d], second[d] = m, v
        weights[d] -= rates[4] * m / (np.sqrt(v) * rates[5] + rates[6])


@compiled(reorder=True)
def _scale_to_unit(row):
    total = 0.0
    for e in range(len(row)):
        total += np.float64(row[e]) * np.float64(row[e])
    inverse = np.float32(1.0 / max(np.sqrt(total), 1e-20))
    for e in range(len(row)):
        row[e] *= inverse


@compiled(reorder=True)
def _project(gradient, row):
    """Drop the part of `gradient` along the unit row."""
    along = np.float32(0.0)
    for e in range(len(row)):
        along += gradient[e] * row[e]
    for e in range(len(row)):
        gradient[e] -= along * row[e]


@compiled()
def _after(rates, gap):
    """The rates of a row that waited: its moments decay by all steps since its last one."""
    first = np.float32(np.float64(rates[0]) ** gap)
    second = np.float32(np.float64(rates[2]) ** gap)
    return first, rates[1], second, rates[3], rates[4], rates[5], rates[6]


@compiled()
def _has_gradient(values, place, extra_b_enc):
    """Whether a feature has fired, or a further loss reaches it."""
    fired = 0
    for n in range(len(values)):
        fired += values[n] != 0
    return fired > 0 or (place >= 0 and extra_b_enc[place] != 0)


@compiled(parallel=True)
def update(
    order_N,
    starts,
    tokens_N,
    values_N,
    dvalues_N,
    x_BD,
    G_BE,
    weights,
    firsts,
    seconds,
    extra,
    rates,
    of_encoder,
    frozen,
    number,
    last_F,
    shadow,
    parts,
):
    """Both weight gradients, projection, Adam, unit norm and the low-precision copy, feature by
    feature.

    weights, firsts, seconds: (W_enc, b_enc, W_dec). extra: (places [F]: a row of the next three or
    -1; further gradients of W_enc, b_enc and W_dec). rates: as of `adam_row`; of_encoder: W_enc's.
    frozen: W_dec stays as it is. last_F: the step in which each feature last moved, of `number`
    steps, if features without a gradient wait; else empty. shadow: (rows, slack, norms, width,
    number of tiles), not kept where it has no rows. parts [CLASSES, D] receive the sums of db_enc x
    W_enc, whose total b_dec's gradient needs.

    The decoder's gradient without its part along the unit row D_f is the sum of z (g - (g . D_f)
    D_f), where g . D_f is the latent gradient already known, so the sum starts at -(sum of z dz)
    D_f.
    """
    W_enc_FD, b_enc_F, W_dec_FE = weights
    places_F, extra_W_enc, extra_b_enc, extra_W_dec = extra
    rows, slack, norms, width, n_tiles = shadow
    n_features = len(b_enc_F)
    for c in numba.prange(CLASSES):
        dW_enc, dW_dec = (
            np.empty(W_enc_FD.shape[1], np.float32),
            np.empty(W_dec_FE.shape[1], np.float32),
        )
        db_enc = np.empty(1, np.float32)
        parts[c] = 0
        for begin in range(c * DEAL, n_features, CLASSES * DEAL):
            for f in range(begin, min(begin + DEAL, n_features)):
                pairs = order_N[starts[f] : starts[f + 1]]
                z, dz, tokens = values_N[pairs], dvalues_N[pairs], tokens_N[pairs]
                place, gap = places_F[f], 1
                if len(last_F):
                    if not _has_gradient(z, place, extra_b_enc):
                        continue
                    gap, last_F[f] = number - last_F[f], number
                mine, of_W_enc = _after(rates, gap), _after(of_encoder, gap)
                along, bias = 0.0, 0.0
                for n in range(len(pairs)):
                    along += np.float64(z[n]) * np.float64(dz[n])
                    bias += dz[n]
                dW_enc[:], db_enc[0] = 0, bias
                add_all(dW_enc, dz, x_BD, tokens)
                if place >= 0:
                    dW_enc += extra_W_enc[place]
                    db_enc[0] += extra_b_enc[place]
                if bias != 0:
                    for d in range(len(dW_enc)):
                        parts[c, d] += np.float32(bias) * W_enc_FD[f, d]
                adam_row(W_enc_FD[f], firsts[0][f], seconds[0][f], dW_enc, of_W_enc)
                adam_row(
                    b_enc_F[f : f + 1], firsts[1][f : f + 1], seconds[1][f : f + 1], db_enc, mine
                )
                if not frozen:
                    for e in range(len(dW_dec)):
                        dW_dec[e] = np.float32(-along) * W_dec_FE[f, e]
                    add_all(dW_dec, z, G_BE, tokens)
                    if place >= 0:
                        dW_dec += extra_W_dec[place]
                        _project(dW_dec, W_dec_FE[f])
                    adam_row(W_dec_FE[f], firsts[2][f], seconds[2][f], dW_dec, mine)
                    _scale_to_unit(W_dec_FE[f])
                if len(rows):
                    at = f % n_tiles * width + f // n_tiles
                    norms[at], slack[0, at], slack[1, at], slack[2, at] = bound_w_row(
                        W_enc_FD, b_enc_F, f, rows, at
                    )
