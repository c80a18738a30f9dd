"""First and second moments of activations, from which means, variances and principal components
follow.

Shapes: N tokens, D width.
"""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations.stored import Stored


class Moments(NamedTuple):
    """n: number of tokens that count; sum: [D] sum of x; second: [D, D] sum of x x^T, all
    float64."""

    n: float
    sum: Tensor
    second: Tensor

    @property
    def rms(self) -> Tensor:
        """[D]: root mean square of each dimension."""
        return (self.second.diagonal() / self.n).sqrt()


COUNTED = 16  # contexts whose moments are added up at once: few stay in the processor's cache


def of_rows(rows_ND: Tensor) -> dict[str, Tensor]:
    """n, sum x and sum x x^T in float64 at float32's price: of x - m, with m the rows' mean, the
    product in float32 is exact to 1e-6 of the covariance, and what m adds is put back exactly."""
    rows_ND = rows_ND.float()
    mean_D = rows_ND.mean(0) if len(rows_ND) else rows_ND.new_zeros(rows_ND.shape[1])
    centred_ND = rows_ND - mean_D
    rest_D, mean_D = centred_ND.sum(0, dtype=torch.float64), mean_D.double()
    cross_DD = torch.outer(rest_D + 0.5 * len(rows_ND) * mean_D, mean_D)
    return {
        "n": torch.tensor(float(len(rows_ND)), dtype=torch.float64, device=rows_ND.device),
        "sum": rest_D + len(rows_ND) * mean_D,
        "second": (centred_ND.T @ centred_ND).double() + cross_DD + cross_DD.T,
    }


def add(sums: dict[str, Tensor], prefix: str, new: Mapping[str, Tensor]) -> None:
    """Add sums, float64, to those that have the prefix before their names, in place; what there is
    none of yet stays where it lies."""
    for name, value in new.items():
        old = sums.get(prefix + name)
        sums[prefix + name] = value if old is None else old.add_(value.to(old.device))


def add_contexts(sums: dict[str, Tensor], hook: str, acts: Stored, counted_CT: Tensor) -> None:
    """Add the moments of at most COUNTED contexts [C, T, D] of a shard, on the device where they
    lie, to its sums HOOK/{n,sum,second}. As they are added up in the same parts, a shard's sums are
    the same bits whoever makes them there."""
    rows_ND = acts[counted_CT.to(acts.values.device)].float()
    if rows_ND.device.type == "mps":  # which has no float64
        rows_ND = rows_ND.cpu()
    add(sums, f"{hook}/", of_rows(rows_ND))
