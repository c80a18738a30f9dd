"""Every metric's one definition, as a function of sums over tokens, so that documents can be
resampled.

Sums over positions 1 and later of each context: `tokens`, `error` and `square` (squared lengths of
x - x_hat and x), `l0` (pairs that fired), `cosine`, `x` [D]; over the predictions made at those
positions but the last: `predictions`, `clean`, `spliced`, `zero` and `mean` (next-token losses in
nats; with x replaced by 0 or its mean) and `kl`; `fired` [F]: tokens on which a feature fired.
"""

from collections.abc import Mapping

import numpy as np

Sums = Mapping[str, np.ndarray]  # [...]; x [..., D]; fired [..., F]
CONSTANT = 1e-12  # of the sum of squares: what rounding leaves of a spread that is 0


def ratio(above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """above / below; NaN, which a document states as null, where below is 0."""
    return np.divide(above, below, out=np.full_like(above, np.nan, float), where=below != 0)


def spread(sums: Sums) -> np.ndarray:
    """sum ||x - mean(x)||^2, 0 for activations that do not vary (their spread is rounding of their
    sum of squares)."""
    rest = sums["square"] - np.square(sums["x"]).sum(-1) / sums["tokens"]
    return np.where(rest <= CONSTANT * sums["square"], 0.0, rest)


def fvu(sums: Sums) -> np.ndarray:
    """Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2, the mean of
    the evaluation set; NaN for activations that do not vary."""
    return ratio(sums["error"], spread(sums))


def l0(sums: Sums) -> np.ndarray:
    """Pairs with non-zero value per token, inference form."""
    return sums["l0"] / sums["tokens"]


def cosine(sums: Sums) -> np.ndarray:
    """Mean over tokens of x . x_hat / (||x|| ||x_hat||); 0 where x_hat is 0."""
    return sums["cosine"] / sums["tokens"]


def cross_entropy(sums: Sums, which: str) -> np.ndarray:
    """Mean next-token cross-entropy in nats of the `clean`, `spliced`, `zero`- or `mean`-ablated
    model."""
    return sums[which] / sums["predictions"]


def ce_recovered(sums: Sums, ablation: str = "zero") -> np.ndarray:
    """(CE_ablated - CE_spliced) / (CE_ablated - CE_clean), same tokens; ablation `zero` or `mean`.
    Gao et al. 2024, section 4."""
    ablated = sums[ablation]
    return ratio(ablated - sums["spliced"], ablated - sums["clean"])


def ce_recovered_mean(sums: Sums) -> np.ndarray:
    """The same, ablation by the mean activation."""
    return ce_recovered(sums, "mean")


def kl(sums: Sums) -> np.ndarray:
    """Mean over predictions of KL(clean || spliced) in nats."""
    return sums["kl"] / sums["predictions"]


def silent_fraction(sums: Sums) -> np.ndarray:
    """Share of features that do not fire (value != 0) once on these tokens."""
    return (sums["fired"] == 0).mean(-1)


def dense_fraction(sums: Sums) -> np.ndarray:
    """Share of features that fire on more than 10% of these tokens."""
    return (sums["fired"] > 0.1 * np.asarray(sums["tokens"])[..., None]).mean(-1)


def dense_among_live(sums: Sums) -> np.ndarray:
    """The same as a share of the features that fire at all; 1 where none does."""
    live = (sums["fired"] > 0).sum(-1)
    dense = (sums["fired"] > 0.1 * np.asarray(sums["tokens"])[..., None]).sum(-1)
    return np.divide(dense, live, out=np.ones(np.shape(live)), where=live > 0)
