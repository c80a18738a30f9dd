"""Adam over an SAE's weights whose features wait while they have no gradient, spelt out row by
row."""

from collections.abc import Sequence

import torch
from torch import Tensor

BETA1, BETA2, EPSILON = 0.9, 0.999, 1e-8


class Waiting:
    """Of W_enc, b_enc, W_dec, b_dec, the first of which moves at a share of the rate."""

    def __init__(self, weights: Sequence[Tensor], rate: float, encoder: float) -> None:
        self.weights, self.rates = weights, (encoder * rate, rate, rate, rate)
        self.moments = [(torch.zeros_like(w), torch.zeros_like(w)) for w in weights]
        self.last, self.number = [0] * len(weights[1]), 0

    @torch.no_grad()
    def step(self) -> None:
        """Move what has a gradient."""
        self.number += 1
        for f in range(len(self.last)):
            if any(bool((w.grad[f] != 0).any()) for w in self.weights[:3]):
                for i in range(3):
                    self._move(i, slice(f, f + 1), self.number - self.last[f])
                self.last[f] = self.number
        self._move(3, slice(None), 1)

    def _move(self, i: int, rows: slice, gap: int) -> None:
        (first, second), gradient = self.moments[i], self.weights[i].grad[rows]
        first[rows] = BETA1**gap * first[rows] + (1 - BETA1) * gradient
        second[rows] = BETA2**gap * second[rows] + (1 - BETA2) * gradient**2
        m = first[rows] / (1 - BETA1**self.number)
        v = second[rows] / (1 - BETA2**self.number)
        self.weights[i][rows] -= self.rates[i] * m / (v.sqrt() + EPSILON)
