"""Steering: features of an SAE scaled, clamped, ablated or added while the model runs, beside
other directions of the same length."""

from saelab.analysis.steering.controls import beside_pushes, random_rows, similar
from saelab.analysis.steering.edits import (
    MODES,
    Edit,
    Mode,
    Push,
    amounts,
    check,
    hooks,
    push,
    pushing,
    shift,
)
from saelab.analysis.steering.generation import Beside, beside, continued, generate
from saelab.analysis.steering.loss import LossChange, loss_change
from saelab.analysis.steering.task import Steered, steer

__all__ = [
    "MODES",
    "Beside",
    "Edit",
    "LossChange",
    "Mode",
    "Push",
    "Steered",
    "amounts",
    "beside",
    "beside_pushes",
    "check",
    "continued",
    "generate",
    "hooks",
    "loss_change",
    "push",
    "pushing",
    "random_rows",
    "shift",
    "similar",
    "steer",
]
