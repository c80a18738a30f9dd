"""Every metric's one definition, as a function of sums over tokens, so that documents can be
resampled.

A table of sums has one row per document and the columns of COLUMNS, followed by D columns with the
sum of x. Tokens: positions 1 and later of each context; next-token losses: predictions made at
those positions.
"""

import numpy as np

COLUMNS = (
    "tokens",
    "error",
    "square",
    "l0",
    "cosine",
    "predictions",
    "clean",
    "spliced",
    "zero",
    "mean",
    "kl",
)
N_COLUMNS = len(COLUMNS)


def _column(sums: np.ndarray, name: str) -> np.ndarray:
    return sums[..., COLUMNS.index(name)]


def fvu(sums: np.ndarray) -> np.ndarray:
    """Fraction of variance unexplained: sum ||x - x_hat||^2 / sum ||x - mean(x)||^2, the mean of
    the evaluation set."""
    spread = _column(sums, "square") - np.square(sums[..., N_COLUMNS:]).sum(-1) / _column(
        sums, "tokens"
    )
    return _column(sums, "error") / spread


def l0(sums: np.ndarray) -> np.ndarray:
    """Pairs with non-zero value per token, inference form."""
    return _column(sums, "l0") / _column(sums, "tokens")


def cosine(sums: np.ndarray) -> np.ndarray:
    """Mean over tokens of x . x_hat / (||x|| ||x_hat||); 0 where x_hat is 0."""
    return _column(sums, "cosine") / _column(sums, "tokens")


def cross_entropy(sums: np.ndarray, which: str) -> np.ndarray:
    """Mean next-token cross-entropy in nats of the `clean`, `spliced`, `zero`- or `mean`-ablated
    model."""
    return _column(sums, which) / _column(sums, "predictions")


def ce_recovered(sums: np.ndarray, ablation: str = "zero") -> np.ndarray:
    """(CE_ablated - CE_spliced) / (CE_ablated - CE_clean), same tokens; ablation `zero` or `mean`.
    Gao et al. 2024, section 4."""
    ablated = _column(sums, ablation)
    return (ablated - _column(sums, "spliced")) / (ablated - _column(sums, "clean"))


def kl(sums: np.ndarray) -> np.ndarray:
    """Mean over predictions of KL(clean || spliced) in nats."""
    return _column(sums, "kl") / _column(sums, "predictions")


def dead_fraction(fired: np.ndarray) -> np.ndarray:
    """Share of features that do not fire (value != 0) once on the evaluation tokens; fired [..., F]
    counts tokens."""
    return (fired == 0).mean(-1)


def dense_fraction(fired: np.ndarray, tokens: np.ndarray | float) -> np.ndarray:
    """Share of features that fire on more than 10% of the tokens; fired [..., F], tokens [...]."""
    return (fired > 0.1 * np.asarray(tokens)[..., None]).mean(-1)
