"""What a run learns from a sample of tokens before its first step: scale, variance, geometric
median.

Shapes: B tokens, D width.
"""

from typing import NamedTuple

from torch import Tensor

from saelab.errors import UsageError

CONSTANT = 1e-10  # of the mean square, up to which float32 leaves a variance where there is none


class Scale(NamedTuple):
    """What activations are divided by in training, so that their mean squared norm is D."""

    input: float
    """divides the input"""
    target: float
    """divides the target; the same where that is the input"""
    variance: float
    """of the scaled target"""


def scale_of(x_BD: Tensor, target_BD: Tensor) -> Scale:
    """The scale of a sample of tokens. Raises UsageError where the target does not vary."""
    s_in, s_out = (
        float((t.square().sum(1).mean() / t.shape[1]).sqrt()) or 1.0 for t in (x_BD, target_BD)
    )
    variance = float((target_BD - target_BD.mean(0)).square().sum(1).mean()) / s_out**2
    if not variance > CONSTANT * target_BD.shape[1]:
        raise UsageError(
            f"the activations to explain are the same at all of the first {len(target_BD)} tokens: "
            "an SAE has nothing to learn there, train at another hook"
        )
    return Scale(s_in, s_out, variance)


def geometric_median(x_BD: Tensor, iterations: int = 20) -> Tensor:
    """The point with the least summed distance to the rows (Weiszfeld's iteration, until it moves
    no more), [D]."""
    point_D, squares_B = x_BD.mean(0), x_BD.square().sum(1)
    for _ in range(iterations):
        weights_B = (squares_B - 2 * x_BD @ point_D + point_D @ point_D).clamp_min(1e-16).rsqrt()
        before_D, point_D = point_D, weights_B @ x_BD / weights_B.sum()
        if float((point_D - before_D).norm() * weights_B.mean()) < 1e-5:
            break
    return point_D
