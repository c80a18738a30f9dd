"""Several hook points as one: the name `a+b` stands for the activations at a and b side by side."""

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

SIGN = "+"


def joined(hooks: Iterable[str]) -> str:
    """The one name of several hook points.

    >>> joined(["blocks.0.hook_out", "blocks.1.hook_out"])
    'blocks.0.hook_out+blocks.1.hook_out'
    """
    return SIGN.join(hooks)


def parts(hook: str) -> list[str]:
    """The hook points that a name stands for: itself, unless it is one of several."""
    return hook.split(SIGN)


def beside(pieces: Sequence["Tensor"]) -> "Tensor":
    """[..., D1 + D2 + ...] of activations [..., D1], [..., D2], ...; a single one is not copied."""
    if len(pieces) == 1:
        return pieces[0]
    import torch  # the command line asks for names before it loads torch

    return torch.cat([*pieces], -1)
