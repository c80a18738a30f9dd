"""How many pairs of a batch each feature gets under a feature budget: shares by Zipf's law, in
whole numbers.

Shapes: F features. Ayonrinde 2024 (arXiv 2411.02124): feature budgets follow a Zipf law fitted to
the densities.
"""

from typing import NamedTuple

import torch
from torch import Tensor

# Share of the ranks that a fit uses: the rarest features fall off faster than any power law.
FITTED = 0.9


class Zipf(NamedTuple):
    """density = scale x (rank + shift)^-exponent, the densest feature having rank 1; r2: of the fit
    to log densities."""

    exponent: float = 1.0
    shift: float = 0.0
    scale: float = 1.0
    r2: float = 0.0

    def expected(self, density_F: Tensor) -> Tensor:
        """[F]: the density that the law gives each feature at its rank among density_F; ties rank
        by feature number."""
        order_F = torch.sort(density_F, descending=True, stable=True).indices
        places_F = torch.arange(1, len(order_F) + 1, device=order_F.device)
        ranks_F = torch.empty_like(order_F).scatter_(0, order_F, places_F)
        return (self.scale * (ranks_F.double() + self.shift) ** -self.exponent).to(density_F.dtype)


def fit_zipf(density_F: Tensor) -> Zipf:
    """The law closest to the positive densities: least squares of log density, ranks weighted
    equally in log rank.

    Exponent and scale are solved for, the shift is the best of 0, 1, 2, 4, ... up to F. Zipf() if
    fewer than 3 are positive.
    """
    positive = density_F[density_F > 0].double().sort(descending=True).values
    if len(positive) < 3:
        return Zipf()
    log_N = positive[: max(3, int(FITTED * len(positive)))].log()
    rank_N = torch.arange(1, len(log_N) + 1, dtype=torch.float64, device=log_N.device)
    weight_N = (1 / rank_N) / (1 / rank_N).sum()
    centred_N = log_N - (weight_N * log_N).sum()
    total = float((weight_N * centred_N.square()).sum())
    best = None
    for shift in [0.0, *(2.0**i for i in range(len(density_F).bit_length()))]:
        x_N = (rank_N + shift).log()
        x_N, mean = x_N - (weight_N * x_N).sum(), float((weight_N * x_N).sum())
        slope = float((weight_N * x_N * centred_N).sum() / (weight_N * x_N.square()).sum())
        missed = float((weight_N * (centred_N - slope * x_N).square()).sum())
        scale = float((weight_N * log_N).sum()) - slope * mean
        r2 = 1 - missed / max(total, 1e-30)
        law = Zipf(-slope, shift, float(torch.tensor(scale, dtype=torch.float64).exp()), r2)
        best = law if best is None or law.r2 > best.r2 else best
    assert best is not None
    return best


def whole(share_F: Tensor, total: int, most: int) -> Tensor:
    """[F] int64 proportional to share_F [F], at least 1 and at most `most` each, `total`
    altogether.

    What a feature cannot take goes to the others in proportion; fractions are carried from feature
    to feature. Raises ValueError unless F <= total <= F x most.
    """
    n = len(share_F)
    if not n <= total <= n * most:
        raise ValueError(f"{total} pairs cannot be shared by {n} features with 1 to {most} each")
    real_F = torch.ones(n, dtype=torch.float64)
    weight_F = share_F.double().cpu().clamp_min(1e-300)
    open_F = torch.ones(n, dtype=torch.bool)
    # Every feature gets 1, the open ones share what is left. One that so exceeds `most` is closed
    # at `most`, and its excess is shared out in the next round; each round closes one or ends.
    while True:
        left = total - float(real_F[~open_F].sum()) - int(open_F.sum())
        real_F[open_F] = 1 + left * weight_F[open_F] / weight_F[open_F].sum()
        full_F = open_F & (real_F > most)
        if not bool(full_F.any()):
            break
        real_F[full_F], open_F = most, open_F & ~full_F
    # Rounding the running sums, not the shares, carries each fraction to the next feature: no sum
    # of shares is off by more than half a pair, and the last is exact.
    ends_F = (real_F.cumsum(0) + 0.5).floor().long()
    ends_F[-1] = total
    return torch.cat([ends_F[:1], ends_F.diff()])
