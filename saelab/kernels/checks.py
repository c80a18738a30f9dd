"""What is checked of single tensors before a kernel sees them."""

import torch
from torch import Tensor


def check_together(**tensors: Tensor | None) -> None:
    """Raise ValueError naming two of the tensors that lie on different devices."""
    places = {name: tensor.device for name, tensor in tensors.items() if tensor is not None}
    (first, place), *others = places.items()
    for name, other in others:
        if other != place:
            raise ValueError(
                f"{first} lies on {place} and {name} on {other}: move one of them, `.to({place})`"
            )


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise FloatingPointError naming how many entries are not finite, and the first one."""
    if not bool(torch.isfinite(tensor.sum())):
        bad = (~torch.isfinite(tensor)).nonzero()
        if len(bad):
            raise FloatingPointError(
                f"{len(bad)} of {tensor.numel()} entries of {name} are not finite, "
                f"first at {bad[0].tolist()}"
            )
