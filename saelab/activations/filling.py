"""A shard in the making: arrays filled with what a source gives, checked and counted on the way.

Shapes: C contexts, T positions, D width.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from saelab.activations.moments import COUNTED, Room, add_contexts
from saelab.activations.plan import Plan
from saelab.activations.source import Piece, Source
from saelab.activations.stored import Stored
from saelab.errors import FailedRun, UsageError


class Filled:
    """The arrays [C, T, D] of a shard as they go to the disk, in `arrays`, and the moments of its
    tokens that count, in `moments`: HOOK/{n,sum,second}, where the source's activations lie.

        filled = Filled(source.plan, shard)
        for n_contexts in filled.fill(source):
            progress(n_contexts)
    """

    def __init__(self, plan: Plan, shard: Piece) -> None:
        self.plan, self.shard = plan, shard
        shape = shard.tokens.shape
        self.arrays = {
            name: Stored.empty((*shape, width), plan.dtype) for name, width in plan.arrays.items()
        }
        self.moments: dict[str, Tensor] = {}
        self.n_contexts = 0  # that are there so far
        self._group: dict[str, Stored] = {}
        self._room_of_rows = Room()

    def fill(self, source: Source) -> Iterator[int]:
        """Take what the source gives for the shard, heads flattened; yields the number of contexts
        of each part.

        Raises UsageError for arrays of other names or lengths than the plan's, FailedRun for what
        the dtype cannot hold.
        """
        n_contexts = len(self.shard.tokens)
        for part in source.acts(self.shard):
            before = self.n_contexts
            self._check(part)
            size = len(next(iter(part.values())))
            for first, end in _groups(before, size):
                rows = slice(first - before, end - before)
                self._put({name: acts[rows].flatten(2) for name, acts in part.items()})
            yield size
        if self.n_contexts < n_contexts:
            raise UsageError(
                f"the source gives activations of {self.n_contexts} contexts out of {n_contexts}"
            )

    def _check(self, part: Mapping[str, Tensor]) -> None:
        """Raise UsageError for a part of other arrays than are due."""
        if part.keys() != self.arrays.keys():
            raise UsageError(f"the source gives {sorted(part)}, its plan has {sorted(self.arrays)}")
        n_contexts, length = self.shard.tokens.shape
        end = self.n_contexts + len(next(iter(part.values())))
        for name, width in self.plan.arrays.items():
            shape = part[name].shape
            due = (end - self.n_contexts, length)
            if shape[:2] != due or shape[2:].numel() != width or end > n_contexts:
                raise UsageError(
                    f"{name} has an array of shape {list(shape)}: contexts {self.n_contexts} to "
                    f"{end - 1} of {n_contexts} at {length} positions of width {width} are due"
                )

    def _put(self, part: Mapping[str, Tensor]) -> None:
        """Take contexts of one group of COUNTED; the last of it is counted with it, and copied from
        the device where it lies."""
        first, within = self.n_contexts, self.n_contexts % COUNTED
        end = first + len(next(iter(part.values())))
        for name, acts_CTD in part.items():
            if not within:
                self._group[name] = self._room(name, acts_CTD.device)
            into = self._group[name][within : within + end - first]
            into.round(acts_CTD)
            if not into.is_finite:
                raise FailedRun(_overflow(name, acts_CTD, self.plan.dtype))
        self.n_contexts = end
        if end % COUNTED == 0 or end == len(self.shard.tokens):
            self._count(slice(first - within, end))

    def _room(self, name: str, device: torch.device) -> Stored:
        """Where the next group goes: into the array itself, unless it lies on another device."""
        into = self.arrays[name][self.n_contexts : self.n_contexts + COUNTED]
        here = device == into.values.device
        return into if here else Stored.empty(tuple(into.values.shape), self.plan.dtype, device)

    def _count(self, contexts: slice) -> None:
        for name, group in self._group.items():
            if name in self.plan.hooks:
                counted_CT = self.shard.counted[contexts]
                add_contexts(self.moments, name, group, counted_CT, self._room_of_rows)
            into = self.arrays[name][contexts].tensors(name)
            for key, tensor in group.tensors(name).items():
                if tensor.device != into[key].device:
                    into[key].copy_(tensor)
        self._group = {}


def _groups(first: int, n_contexts: int) -> Iterator[tuple[int, int]]:
    """The contexts first to first + n_contexts of a shard, parted where a group of COUNTED ends."""
    end = first + n_contexts
    while first < end:
        until = min(end, first - first % COUNTED + COUNTED)
        yield first, until
        first = until


def _overflow(name: str, acts: Tensor, dtype: str) -> str:
    if not bool(torch.isfinite(acts).all()):
        n_bad = int((~torch.isfinite(acts)).sum())
        return f"{n_bad} of {acts.numel()} activations at {name} are not finite"
    return (
        f"{name} reaches {float(acts.abs().max()):.3g}, more than {dtype} holds: "
        "capture with --dtype float32 or bfloat16"
    )
