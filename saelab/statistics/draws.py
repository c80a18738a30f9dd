"""Random streams by name and numbers."""

import numpy as np
import torch


def stream(name: str, *numbers: int) -> torch.Generator:
    """A generator that shares nothing with other names' and numbers', nor with an SAE's of the same
    seed.

    torch keeps the low 32 bits of a seed and draws the same rows from equal ones: a world of seed 0
    would have the directions that an SAE of seed 0 starts from. So the seed is a hash of all that
    is given.
    """
    state = np.random.SeedSequence([int.from_bytes(name.encode()), *numbers]).generate_state(1)
    return torch.Generator().manual_seed(int(state[0]))
