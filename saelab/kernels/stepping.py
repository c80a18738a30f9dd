"""What the fused training steps of all backends take and give.

Shapes: B tokens, F features, D width in, E width out, N pairs, A features with further gradients.
"""

from typing import Any, NamedTuple

from torch import Tensor

from saelab.code import Code


class Weights(NamedTuple):
    """W_enc [F, D], b_enc [F], W_dec [F, E], b_dec [E]; or a moment of each. Contiguous float32,
    changed in place."""

    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor
    b_dec: Tensor


class Adam(NamedTuple):
    """One step's numbers: number counts from 1. frozen: decoder rows and their moments stay as they
    are. encoder: the share of lr that W_enc moves at.

    last [F] int64, changed in place: the number of the step in which each feature last moved. With
    it a feature that has no gradient waits: its rows and moments keep their bits, and when it has
    one again its moments decay by all the steps since then.
    """

    lr: float
    number: int
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    frozen: bool = False
    encoder: float = 1.0
    last: Tensor | None = None


class Extra(NamedTuple):
    """Gradients of further losses (AuxK) for some features [A], ascending: dW_enc [A, D], db_enc
    [A], dW_dec [A, E]."""

    features: Tensor
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor


class Forward(NamedTuple):
    """What a step has measured and its update needs."""

    code: Code
    """the chosen pairs"""
    error: float | Tensor
    """sum of squared errors; on a card a tensor, as reading it waits"""
    G: Tensor
    """[B, E]: scale (x_hat - target), overwritten by the next step"""
    dvalues: Tensor
    """[N]: latent gradients"""
    x: Tensor
    """[B, D]: what was chosen from"""
    centred: bool
    """whether b_dec was subtracted from it"""
    grouped: Any = None
    """what the update needs of the pairs by feature, where it is at hand"""


def rates(adam: Adam, share: float = 1.0) -> tuple[float, ...]:
    """beta1, 1 - beta1, beta2, 1 - beta2, step size at that share of lr, 1 / sqrt(bias correction
    of the second moment), epsilon."""
    size = share * adam.lr / (1 - adam.beta1**adam.number)
    inverse = (1 - adam.beta2**adam.number) ** -0.5
    return adam.beta1, 1 - adam.beta1, adam.beta2, 1 - adam.beta2, size, inverse, adam.epsilon
