"""What is done again where lists did not settle it, and what a choice is given back as.

Shapes: B tokens, F features, Q queries, N pairs.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels.triton.screen import Problem, room_of

_PLACES = 1 << 23  # of the lists that are held at once
tally = {"asked": 0, "certified": 0}  # queries, and those that their first lists settled


def rungs(keep: int, n_items: int) -> list[int]:
    """Lengths of lists: at first, for what those do not settle, and for what nothing else does."""
    return sorted({min(n_items, keep), min(n_items, 8 * keep), n_items})


def pieces(queries: Tensor, most: int) -> Iterator[Tensor]:
    """So many queries at once that their lists of at most `most` items are not too long."""
    return iter(queries.split(max(1, _PLACES // room_of(most))))


def code_of(problem: Problem, tokens: Tensor, features: Tensor, values: Tensor) -> Code:
    """Pairs in any order, as a Code."""
    key_N, order = torch.sort(tokens * len(problem.W) + features)
    edges = torch.arange(len(problem.x) + 1, device=key_N.device) * len(problem.W)
    starts = torch.searchsorted(key_N, edges)
    return Code(starts, features[order], values[order].float(), len(problem.W))
