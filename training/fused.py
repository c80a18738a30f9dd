"""What the fused steps of the backends ask of the trainer: which of them serves, what its first
screen certified, how precise the products beside it are."""

import contextlib
import sys
from contextlib import AbstractContextManager
from typing import Any

import torch

from saelab import kernels

from .config import Config


def step_of(backend: str) -> Any:
    """The class of a backend's fused step."""
    if backend == "triton":
        from saelab.kernels.triton.step import Step as OfTriton

        return OfTriton
    from saelab.kernels.cpu.step import Step as OfCpu

    return OfCpu


# Where a backend counts what its first screen certified: its count, and what reads it.
TALLIES = {
    "saelab.kernels.cpu.screen.winners": "saelab.kernels.cpu.backend",
    "saelab.kernels.triton.ladder": "saelab.kernels.triton.backend",
}


def certified() -> float | None:
    """The share of choices since the last call that a backend's first screen certified, the smaller
    one where two have screened; None where none was."""
    fractions = []
    for name, home in TALLIES.items():
        counting = sys.modules.get(name)
        if counting is not None and counting.tally["asked"]:
            fractions.append(sys.modules[home].certified_fraction())  # which begins to count anew
    return min(fractions, default=None)


def backend_of(config: Config, device: torch.device) -> str | None:
    """The backend with a fused step that serves float32 tensors there, if there is one."""
    if config.backend == "triton":
        return "triton"
    for name in ("cpu", "triton"):
        if device.type in kernels.HOMES[name].devices and config.backend in (None, name):
            return name
    return None


def aux_dtype(config: Config, device: torch.device) -> torch.dtype:
    """What an auxiliary loss is multiplied out in: bfloat16 on a GPU, and on a CPU where the probe
    found it fast and adding up in float32; else float32.

    Its relative error is 2^-8, in a gradient of weight 1/32; in float32 the products would cost as
    much as the rest of the step.
    """
    if device.type == "cuda" and config.backend in (None, "triton"):
        return torch.bfloat16
    if device.type != "cpu" or config.backend not in (None, "cpu"):
        return torch.float32
    from saelab.kernels.cpu.probe import screen_dtype

    return torch.bfloat16 if screen_dtype() == torch.bfloat16 else torch.float32


def products(dtype: torch.dtype, device: torch.device) -> AbstractContextManager:
    """Within the block products are made in bfloat16, or as they are."""
    if dtype != torch.bfloat16:
        return contextlib.nullcontext()
    return torch.autocast(device.type, torch.bfloat16)
