"""Arrays of a shard, filled with what a source gives and checked on the way.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from saelab.activations.plan import Plan
from saelab.activations.source import Piece, Source
from saelab.activations.stored import Stored
from saelab.errors import FailedRun, UsageError


def empty(plan: Plan, name: str, shard: Piece) -> Stored:
    """[C, T, D] for an array of a shard."""
    return Stored.empty((*shard.tokens.shape, plan.arrays[name]), plan.dtype)


def fill(arrays: dict[str, Stored], source: Source, shard: Piece) -> Iterator[int]:
    """Copy what the source gives for a shard into its arrays [C, T, D], heads flattened; yields the
    number of contexts of each part.

    Raises UsageError for arrays of other names or lengths than the plan's, FailedRun for what the
    dtype cannot hold.
    """
    first, (n_contexts, length) = 0, shard.tokens.shape
    for part in source.acts(shard):
        if part.keys() != arrays.keys():
            raise UsageError(f"the source gives {sorted(part)}, its plan has {sorted(arrays)}")
        end = first + len(next(iter(part.values())))
        for name, stored in arrays.items():
            acts = part[name].flatten(2)
            into = stored[first:end]
            due = into.values.shape
            if acts.shape != (end - first, length, due[-1]) or acts.shape != due:
                raise UsageError(
                    f"{name} has an array of shape {list(part[name].shape)}: contexts {first} to "
                    f"{end - 1} of {n_contexts} at {length} positions of width {due[-1]} are due"
                )
            into.round(acts)
            if not into.is_finite:
                raise FailedRun(_overflow(name, acts, source.plan.dtype))
        yield end - first
        first = end
    if first < n_contexts:
        raise UsageError(f"the source gives activations of {first} contexts out of {n_contexts}")


def _overflow(name: str, acts: Tensor, dtype: str) -> str:
    if not bool(torch.isfinite(acts).all()):
        n_bad = int((~torch.isfinite(acts)).sum())
        return f"{n_bad} of {acts.numel()} activations at {name} are not finite"
    return (
        f"{name} reaches {float(acts.abs().max()):.3g}, more than {dtype} holds: "
        "capture with --dtype float32 or bfloat16"
    )
