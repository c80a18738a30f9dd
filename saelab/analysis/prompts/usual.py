"""How strongly each feature fires where it does, counted on a cache.

Shapes: F features.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.sae import SAE

TOKENS = 50_000


class Usual(NamedTuple):
    """What each feature does as a rule."""

    mean: Tensor
    """[F]: mean |value| over the tokens on which it fires; NaN for one that never does"""
    density: Tensor
    """[F]: share of the tokens on which it fires"""


@torch.no_grad()
def of_cache(sae: SAE, cache: Cache, n_tokens: int = TOKENS) -> Usual:
    """Both over the first n_tokens training tokens. A run's index holds them of more tokens:
    `FeatureIndex.means` and `densities`.

    >>> usual_F = of_cache(sae, cache).mean
    """
    n_read = 0
    sums_F = torch.zeros(sae.n_features, dtype=torch.float64)
    fired_F = torch.zeros(sae.n_features, dtype=torch.int64)
    for chunk in cache.counted(sae.origin.hook, "train", n_tokens):
        code = sae.encode(chunk.x.to(sae.W_enc)).to("cpu")
        sums_F.index_add_(0, code.features, code.values.abs().double())
        fired_F += torch.bincount(code.features[code.values != 0], minlength=sae.n_features)
        n_read += len(chunk.x)
    return Usual((sums_F / fired_F).float(), (fired_F / max(n_read, 1)).float())
