"""What one training step measured on its batch."""

from typing import NamedTuple

from torch import Tensor

Number = float | Tensor  # a tensor of no dimension, where reading it would wait for a card


class Step(NamedTuple):
    """What one step measured on its batch, in training form: on the card until it is read."""

    loss: Number
    """what was descended"""
    terms: dict[str, Number]
    """its parts by name, unweighted"""
    l0: Number
    """pairs with non-zero value per token"""
    dead: Number
    """share of F"""
    dense: Number
    """share of F"""
    revived: int
    """dead features that were given new rows, since the first step"""
    certified: float | None
    """share of the choices that the first screen certified (None: not screened)"""
    lr: float
    """learning rate"""

    @property
    def fvu(self) -> float:
        """The reconstruction loss of the SAE's own code: a mean predictor scores 1."""
        return float(self.terms["fvu"])

    def row(self) -> dict[str, float]:
        """Everything by name, flat."""
        shares = {"l0": self.l0, "dead": self.dead, "dense": self.dense}
        numbers = {"loss": self.loss, **self.terms, **shares}
        numbers |= {"revived": self.revived} if self.revived else {}
        numbers |= {} if self.certified is None else {"certified_fraction": self.certified}
        return {name: round(float(value), 8) for name, value in {**numbers, "lr": self.lr}.items()}
