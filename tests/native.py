"""Whether Triton's kernels run as they are or interpreted: decided before Triton is imported."""

import os
from collections.abc import MutableMapping

import torch


def natively_where_there_is_a_card(environment: MutableMapping[str, str] = os.environ) -> None:
    """Ask for Triton's interpreter where there is no CUDA device, unless somebody said otherwise;
    with a card nothing is set, and the kernels are compiled for it."""
    if not torch.cuda.is_available():
        environment.setdefault("TRITON_INTERPRET", "1")
