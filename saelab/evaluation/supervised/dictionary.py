"""Supervised dictionaries: one direction per attribute value, by class means or by least squares
(Makelov et al. 2024, 3.1).

Shapes: P prompts, D width, F features (one per value of every attribute).
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.errors import UsageError

Labels = dict[str, list[str]]
How = Literal["least-squares", "mean"]


class Features(NamedTuple):
    """What a dictionary says of P activations: x_hat = codes [P, F] @ rows [F, D] + bias [D]."""

    codes: Tensor
    rows: Tensor
    bias: Tensor

    def reconstruction(self) -> Tensor:
        """x_hat [P, D]."""
        return self.codes @ self.rows + self.bias

    def take(self, index: Tensor) -> "Features":
        """The activations of these numbers."""
        return self._replace(codes=self.codes[index])


# A dictionary at one position: activations [P, D] and their labels -> Features. An SAE needs no
# labels.
Dictionary = Callable[[Tensor, Labels], Features]


def values_of(labels: Labels) -> list[tuple[str, str]]:
    """Every (attribute, value), attributes in their order, values sorted."""
    return [(name, value) for name, column in labels.items() for value in sorted(set(column))]


def one_hot(labels: Labels, features: list[tuple[str, str]]) -> Tensor:
    """C [P, F]: 1 where the prompt has the value; a value that is not among the features has
    none."""
    columns = [torch.tensor([given == value for given in labels[name]]) for name, value in features]
    return torch.stack(columns, 1).float()


def check_design(labels: Labels) -> None:
    """Raise UsageError, naming them, for attributes with a single value and for attributes the
    others determine."""
    for name, column in labels.items():
        if len(set(column)) < 2:
            raise UsageError(
                f"attribute {name!r} is {column[0]!r} in all {len(column)} prompts: give each "
                "attribute two values"
            )
    ranks = {
        name: _rank({other: labels[other] for other in labels if other != name}) for name in labels
    }
    full = _rank(labels)
    tied = [name for name in labels if full - ranks[name] < len(set(labels[name])) - 1]
    if tied:
        raise UsageError(
            f"attributes {', '.join(map(repr, tied))} are collinear in these "
            f"{len(labels[tied[0]])} prompts (some values follow from the other attributes): vary "
            "them independently, or drop one"
        )


def _rank(labels: Labels) -> int:
    """Degrees of freedom of the centred one-hot design."""
    if not labels:
        return 0
    C_PF = one_hot(labels, values_of(labels)).double().numpy()
    return int(np.linalg.matrix_rank(C_PF - C_PF.mean(0)))


def fit(acts_PD: Tensor, labels: Labels, how: How = "least-squares") -> Dictionary:
    """The dictionary whose reconstruction is mean + sum over attributes of the code of the prompt's
    value.

    mean: u_iv = E[a | value v of attribute i] - E[a]. least-squares: U = (C^T C)^+ C^T (A - E[a])
    for the one-hot C [P, F]: equal to the means on a balanced design, and free of their double
    counting where attributes are correlated. Makelov et al., 3.1. Raises UsageError for a constant
    attribute or collinear ones.
    """
    check_design(labels)
    features = values_of(labels)
    C_PF = one_hot(labels, features).to(acts_PD)
    mean_D = acts_PD.mean(0)
    centred_PD = acts_PD - mean_D
    if how == "mean":
        rows_FD = (C_PF.T @ centred_PD) / C_PF.sum(0)[:, None]
    else:
        rows_FD = torch.from_numpy(
            np.linalg.pinv(C_PF.double().cpu().numpy()) @ centred_PD.double().cpu().numpy()
        ).to(acts_PD)
    return lambda acts, labels: Features(one_hot(labels, features).to(acts), rows_FD, mean_D)
