"""How long an encoder's rows are at the start, and so how fast they move."""

from statistics import NormalDist

from saelab.sparsify import Choice

from .config import Config

NORMAL = NormalDist()


def length(config: Config, d_model: int) -> float:
    """The norm that an SAE's encoder rows start with, and the share of the learning rate that they
    move at; 1 of transcoders, which `aim` starts, and of what has no k.

    >>> round(length(Config(encoder="fitted", features=1024, k=32), 256), 2)
    0.61
    """
    form = config.form
    budget = isinstance(form, Choice)
    # The levels of jumprelu begin by letting k pairs through, and aim at that.
    if config.encoder == "unit" or config.target or not (budget or config.sparsify == "jumprelu"):
        return 1.0
    return best_multiple(config.k, config.features, d_model, signed=budget and form.signed)


def best_multiple(k: int, n_features: int, d_model: int, *, signed: bool = False) -> float:
    """What brings x_hat nearest to x where W_enc = W_dec are random unit rows: x_hat times 1 / (1 +
    (k - 1) m / D).

    A pre-activation is normal with variance |x|^2 / D, whatever the data. The k highest of F lie
    above t, P(z > t) = k / F, where the mean square is m |x|^2 / D, m = 1 + t phi(t) F / k. Two of
    the rows have in common what lies along x, z z' / |x|^2, and the rest is random: x . x_hat = S =
    sum z^2 = k m |x|^2 / D, and |x_hat|^2 = S + sum of z^2 z'^2 / |x|^2 over pairs of two.
    """
    scores = 2 * n_features if signed else n_features
    n_kept = min(k, scores / 2)  # the others are not positive
    t = NORMAL.inv_cdf(1 - n_kept / scores)
    return 1 / (1 + max(0, n_kept - 1) * (1 + t * NORMAL.pdf(t) * scores / n_kept) / d_model)
