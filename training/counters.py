"""How often each feature of a run fires, counted in tokens: which are dead, dense, or rarer than
Zipf's law expects.

Shapes: F features.
"""

import torch
from torch import Tensor

from saelab.budgets import fit_zipf

from .config import Config

DENSE = 0.1


class Counters:
    """silent_F: tokens since each feature fired. The density is an average over about the last
    `config.window` tokens."""

    def __init__(self, config: Config, n_layers: int = 1) -> None:
        n_features = config.features * n_layers
        self.window, self.below = config.window, config.aux_zipf
        place = config.place
        self.silent_F = torch.zeros(n_features, dtype=torch.int64, device=place)
        self.density_F = torch.zeros(n_features, dtype=torch.float64, device=place)
        self.n_tokens = 0

    def count(self, fired_F: Tensor, n_tokens: int) -> None:
        """Take in a batch: on how many of its n_tokens each feature fired."""
        self.silent_F = torch.where(fired_F > 0, 0, self.silent_F + n_tokens)
        self.n_tokens += n_tokens
        share = n_tokens / max(n_tokens, min(self.n_tokens, self.window))
        self.density_F = self.density_F.lerp(fired_F.double() / n_tokens, share)

    def density(self) -> Tensor:
        """[F] float64: share of tokens each feature fires on."""
        return self.density_F

    def dead(self) -> Tensor:
        """The share of features that have been silent for the whole window."""
        return (self.silent_F >= self.window).float().mean()

    def dense(self) -> Tensor:
        """The share of features that fire on more than a tenth of the tokens."""
        return (self.density_F > DENSE).float().mean()

    def rare(self) -> Tensor:
        """[F] bool: dead, or with a density below `config.aux_zipf` times what Zipf's law, fitted
        to all, expects at its rank."""
        dead_F = self.silent_F >= self.window
        if not self.below or self.n_tokens < self.window:
            return dead_F
        return dead_F | (
            self.density_F < self.below * fit_zipf(self.density_F).expected(self.density_F)
        )

    def state(self) -> dict[str, Tensor]:
        """To be saved."""
        return {
            "silent": self.silent_F,
            "density": self.density_F,
            "counted": torch.tensor(self.n_tokens),
        }

    def load_state(self, tensors: dict[str, Tensor]) -> None:
        """The inverse of `state`."""
        self.silent_F, self.density_F = tensors["silent"].clone(), tensors["density"].clone()
        self.n_tokens = int(tensors["counted"])
