"""In which order a list of features is worth reading. F features; arrays are numpy."""

import numpy as np
from numpy.typing import NDArray

SUPPORT = 20  # firings that halve the doubt whether there is a pattern


def interest(
    fired_F: NDArray, mean_F: NDArray, n_tokens: int, entropy_F: NDArray | None = None
) -> NDArray:
    """[F] strength x surprise x breadth x support, 0 for what never fired.

    strength: mean |activation| where it fires, over the mean of that over the features that fired;
    surprise: log2(1 / density) bits; breadth: log2(1 + 2^H), H the entropy in bits of the tokens
    under its activation (entropy_F; None: 1), which puts what several tokens share above a single
    token's detector; support: n / (n + SUPPORT) for n firings.

    >>> interest(np.array([10, 500]), np.array([4.0, 4.0]), 1000)
    array([2.2..., 0.96...])
    """
    alive_F = fired_F > 0
    scale = mean_F[alive_F].mean() if alive_F.any() else 1.0
    surprise_F = np.log2(n_tokens / np.maximum(fired_F, 1))
    breadth_F = 1.0 if entropy_F is None else np.log2(1 + np.exp2(entropy_F))
    support_F = fired_F / (fired_F + SUPPORT)
    return np.where(alive_F, mean_F / scale * surprise_F * breadth_F * support_F, 0.0)
