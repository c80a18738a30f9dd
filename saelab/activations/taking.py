"""Whole contexts out of shards by their number.

Shapes: C contexts, T positions, D width, S shards.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor, from_numpy

from saelab import joint
from saelab.activations.stored import Stored


def taken(
    opens: Sequence[Callable[[], Any]],
    sizes: Sequence[int],
    names: Sequence[str],
    numbers_C: Tensor,
    at_once: int,
) -> Iterator[Tensor]:
    """Activations [C, T, D] float32 at some hooks side by side, in chunks, of contexts counted over
    all shards, ascending.

    opens: opens each shard's file; sizes: how many contexts each has.
    """
    ends_S = np.cumsum(sizes)
    shard_C = from_numpy(np.searchsorted(ends_S, numbers_C.numpy(), side="right"))
    for number in shard_C.unique().tolist():
        first = int(ends_S[number]) - sizes[number]
        with opens[number]() as file:
            stored = [Stored.read(file, name) for name in names]
            for rows in (numbers_C[shard_C == number] - first).split(at_once):
                yield joint.beside([each[rows].float() for each in stored])
