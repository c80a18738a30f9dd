"""First and second moments of activations, from which means, variances and principal components
follow.

Shapes: N tokens, D width.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.activations.source import all_but_first
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
    """n, sum x and sum x x^T, see `add_rows`."""
    sums: dict[str, Tensor] = {}
    add_rows(sums, "", rows_ND.to(torch.float32, copy=True))
    return sums


def of_pieces(pieces: Iterable[Tensor]) -> Moments:
    """The moments of rows [N, D] in pieces (at least one), which are overwritten."""
    sums: dict[str, Tensor] = {}
    for rows_ND in pieces:
        add_rows(sums, "", rows_ND)
    return Moments(float(sums["n"]), sums["sum"], sums["second"])


def add_rows(sums: dict[str, Tensor], prefix: str, rows_ND: Tensor) -> None:
    """Add rows, which are overwritten, to the sums of that prefix in float64 at float32's price: of
    x - m, with m the rows' mean, the product in float32 is exact to 1e-6 of the covariance, and
    what m adds is put back exactly."""
    n_rows, width = rows_ND.shape
    mean_D = rows_ND.mean(0) if n_rows else rows_ND.new_zeros(width)
    rows_ND -= mean_D
    rest_D, mean_D = rows_ND.sum(0, dtype=torch.float64), mean_D.double()
    half_D = rest_D + 0.5 * n_rows * mean_D
    for name, shape in (("n", ()), ("sum", (width,)), ("second", (width, width))):
        if prefix + name not in sums:
            sums[prefix + name] = half_D.new_zeros(shape)
    sums[prefix + "n"] += n_rows
    sums[prefix + "sum"] += rest_D + n_rows * mean_D
    second_DD = sums[prefix + "second"].add_(rows_ND.T @ rows_ND)
    second_DD.addr_(half_D, mean_D).addr_(mean_D, half_D)


def add(sums: dict[str, Tensor], prefix: str, new: Mapping[str, Tensor]) -> None:
    """Add sums, float64, to those that have the prefix before their names, in place; what there is
    none of yet stays where it lies."""
    for name, value in new.items():
        old = sums.get(prefix + name)
        sums[prefix + name] = value if old is None else old.add_(value.to(old.device))


class Room:
    """Memory for float32 rows that is used again: fresh memory costs more than what is written
    there."""

    def __init__(self) -> None:
        self._memory = torch.empty(0)

    def rows(self, n_rows: int, width: int, device: torch.device) -> Tensor:
        """[n_rows, width] of anything, on a device; it is the caller's until the next call."""
        if self._memory.numel() < n_rows * width or self._memory.device != device:
            self._memory = torch.empty(n_rows * width, device=device)
        return self._memory[: n_rows * width].view(n_rows, width)


def add_contexts(
    sums: dict[str, Tensor], hook: str, acts: Stored, counted_CT: Tensor, room: Room
) -> None:
    """Add the moments of at most COUNTED contexts [C, T, D] of a shard, on the device where they
    lie, to its sums HOOK/{n,sum,second}. As they are added up in the same parts, a shard's sums are
    the same bits whoever makes them there."""
    n_contexts, length, width = acts.values.shape
    device = acts.values.device
    into = torch.device("cpu") if device.type == "mps" else device  # which has no float64
    if torch.equal(counted_CT, all_but_first(counted_CT)):
        rows_ND = room.rows(n_contexts * (length - 1), width, into)
        acts[:, 1:].float_into(rows_ND.view(n_contexts, length - 1, width))
    else:
        rows_ND = room.rows(int(counted_CT.sum()), width, into)
        acts[counted_CT.to(device)].float_into(rows_ND)
    add_rows(sums, f"{hook}/", rows_ND)
