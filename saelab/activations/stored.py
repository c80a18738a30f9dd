"""Activations as a cache holds them, and the one place where they become float32 again.

int8 is symmetric with a scale per token: its largest magnitude is 127, the others are rounded to
the nearest of 255 equal steps. What else a cache holds is its values' own dtype.

Shapes: C contexts, T positions, D width; the scale's last dimension is 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from saelab.activations.plan import DTYPES, SCALE

STEPS = 127  # of each sign
# What the largest magnitude is divided by: 127 times a 127th of the largest float32, which is
# rounded up, is infinite.
DIVISOR = STEPS * (1 + 2**-22)


@dataclass(frozen=True)
class Stored:
    """Activations [..., D] as they are stored.

    >>> Stored.of(torch.tensor([[1.0, -2.0, 0.4]]), "int8").values
    tensor([[  64, -127,   25]], dtype=torch.int8)
    """

    values: Tensor
    """[..., D]"""
    scale: Tensor | None = None
    """[..., 1] float32 of int8 values: what one step is. float16 would overflow, or lose all of a
    token, long before the values do, to save 2 bytes in D"""

    @classmethod
    def empty(
        cls, shape: tuple[int, ...], dtype: str, device: torch.device | str = "cpu"
    ) -> "Stored":
        """Room for activations of a shape and of a row of DTYPES."""
        values = torch.empty(shape, dtype=DTYPES[dtype], device=device)
        scaled = dtype == "int8"
        return cls(values, torch.empty(*shape[:-1], 1, device=device) if scaled else None)

    @classmethod
    def of(cls, acts: Tensor, dtype: str) -> "Stored":
        """Activations rounded to a row of DTYPES."""
        stored = cls.empty(tuple(acts.shape), dtype, acts.device)
        stored.round(acts)
        return stored

    @classmethod
    def read(cls, file: Any, name: str, rows: slice | None = None) -> "Stored":
        """An array of an open safetensors file, or those contexts of it; without rows it is mapped
        into memory, not read."""
        get = file.get_tensor if rows is None else lambda key: file.get_slice(key)[rows]
        values = get(name)
        return cls(values, get(name + SCALE) if values.dtype == torch.int8 else None)

    @classmethod
    def among(cls, tensors: Mapping[str, Tensor], name: str) -> "Stored":
        """What `tensors` made of them."""
        return cls(tensors[name], tensors.get(name + SCALE))

    def tensors(self, name: str) -> dict[str, Tensor]:
        """The tensors that are these activations, by their names in a shard. All have the same
        leading dimensions: picking rows of each picks tokens."""
        scale = {} if self.scale is None else {name + SCALE: self.scale}
        return {name: self.values, **scale}

    def to(self, device: torch.device | str) -> "Stored":
        """The same on a device."""
        scale = None if self.scale is None else self.scale.to(device)
        return Stored(self.values.to(device), scale)

    def __getitem__(self, rows: Any) -> "Stored":
        return Stored(self.values[rows], None if self.scale is None else self.scale[rows])

    def round(self, acts: Tensor) -> None:
        """Fill these with activations of their shape, rounded to their dtype."""
        if self.scale is None:
            self.values.copy_(acts)
        else:
            steps, scale = _steps(acts.float())
            self.values.copy_(steps)
            self.scale.copy_(scale)

    @property
    def is_finite(self) -> bool:
        """Whether nothing here is infinite or NaN, which shows in the extremes: they are found 15
        times as fast."""
        extremes = (self.values if self.scale is None else self.scale).aminmax()
        return all(math.isfinite(extreme) for extreme in extremes)

    def float(self) -> Tensor:
        """[..., D] float32: what everybody reads."""
        if self.scale is None:
            return self.values.float()
        return self.values.float().mul_(self.scale)

    def float_into(self, into: Tensor) -> None:
        """The same copied into float32 memory of their shape."""
        into.copy_(self.values)
        if self.scale is not None:
            into.mul_(self.scale.to(into.device))


def _steps(acts: Tensor) -> tuple[Tensor, Tensor]:
    """How many steps each of some activations [..., D] is, and one step of each token [..., 1]."""
    low, high = acts.aminmax(dim=-1, keepdim=True)
    scale = torch.maximum(high, -low).div_(DIVISOR)
    # A token whose largest magnitude is no step that float32 holds is 0.
    steps = torch.where(scale > 0, acts / scale, 0).round_()
    return steps.clamp_(-STEPS, STEPS), scale


def round_trip(acts: Tensor, dtype: str) -> Tensor:
    """[..., D] float32 activations as a cache of this dtype gives them back."""
    return Stored.of(acts, dtype).float()
