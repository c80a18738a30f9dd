"""What a run learns from a sample of tokens before its first step: scale, variance, geometric
median.

Shapes: B tokens, D width.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.errors import UsageError

CONSTANT = 1e-10  # of the mean square, up to which float32 leaves a variance where there is none


class Scale(NamedTuple):
    """What activations are divided by in training, so that their mean squared norm is D. Of several
    hooks side by side each has its own, or the largest would rule: a vector with every hook's
    number at its places."""

    input: float | Tensor
    """divides the input; [D] of several hooks"""
    target: float | Tensor
    """divides the target; the same where that is the input"""
    variance: float
    """of the scaled target"""

    def to(self, device: str) -> "Scale":
        """The same on a device."""
        s_in, s_out = (s.to(device) if isinstance(s, Tensor) else s for s in self[:2])
        return Scale(s_in, s_out, self.variance)

    def flat(self) -> Tensor:
        """Its numbers in one vector, to be saved."""
        return torch.cat([torch.as_tensor(s, dtype=torch.float64).flatten() for s in self])

    @staticmethod
    def of(flat: Tensor, d_in: int) -> "Scale":
        """The inverse of `flat`, for an input of width d_in."""
        if len(flat) == 3:
            return Scale(*flat.tolist())
        return Scale(flat[:d_in].float(), flat[d_in:-1].float(), float(flat[-1]))


def scale_of(
    x_BD: Tensor, target_BD: Tensor, widths: tuple[Sequence[int], Sequence[int]] = ((), ())
) -> Scale:
    """The scale of a sample of tokens. widths: of the hooks that lie side by side in the input and
    in the target, where there are several. Raises UsageError where the target does not vary."""
    s_in, s_out = (_rms(t, each) for t, each in zip((x_BD, target_BD), widths, strict=True))
    if isinstance(s_out, Tensor):
        scaled_BD = target_BD / s_out
        variance = float((scaled_BD - scaled_BD.mean(0)).square().sum(1).mean())
    else:
        variance = float((target_BD - target_BD.mean(0)).square().sum(1).mean()) / s_out**2
    if not variance > CONSTANT * target_BD.shape[1]:
        raise UsageError(
            f"the activations to explain are the same at all of the first {len(target_BD)} tokens: "
            "an SAE has nothing to learn there, train at another hook"
        )
    return Scale(s_in, s_out, variance)


def _rms(x_BD: Tensor, widths: Sequence[int]) -> float | Tensor:
    """Root mean square over all dimensions; [D] of several hooks, each of its own."""
    if len(widths) < 2:
        return float((x_BD.square().sum(1).mean() / x_BD.shape[1]).sqrt()) or 1.0
    of_hooks = [_rms(piece_BD, ()) for piece_BD in x_BD.split([*widths], 1)]
    return torch.tensor(of_hooks).repeat_interleave(torch.tensor(widths))


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
