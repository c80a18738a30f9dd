"""What the ranks of a job exchange in training, each kind counted in bytes.

Shapes: n ranks.
"""

from collections import Counter

import torch
import torch.distributed as dist
from torch import Tensor

from saelab import ranks

sent: Counter[str] = Counter()  # bytes that this rank has sent, by what they were
LOW = (torch.bfloat16, torch.float16)  # are added up in float32


def summed(part: Tensor, what: str) -> Tensor:
    """The sum of all ranks' tensors, to the same bits on every rank."""
    whole = part.detach().to(torch.float32 if part.dtype in LOW else part.dtype, copy=True)
    whole = whole.contiguous()
    dist.all_reduce(whole)
    _count(what, 2 * whole.nbytes * (ranks.world() - 1) // ranks.world())
    return whole.to(part.dtype)


def smallest(part: Tensor, what: str) -> Tensor:
    """The least of all ranks' numbers, entry by entry."""
    whole = part.detach().clone()
    dist.all_reduce(whole, op=dist.ReduceOp.MIN)
    _count(what, 2 * whole.nbytes * (ranks.world() - 1) // ranks.world())
    return whole


def gathered(mine: Tensor, what: str) -> Tensor:
    """Every rank's tensor, all of one shape: [n, ...]."""
    every = mine.new_empty(ranks.world() * mine.numel())
    dist.all_gather_single(every, mine.detach().contiguous().view(-1))
    _count(what, mine.nbytes * (ranks.world() - 1))
    return every.view(ranks.world(), *mine.shape)


def swapped(for_each: Tensor, what: str) -> Tensor:
    """[n, ...]: what each rank has for this one, of for_each [n, ...], what this one has for
    each."""
    mine = torch.empty_like(for_each)
    dist.all_to_all_single(mine, for_each.contiguous())
    _count(what, for_each.nbytes * (ranks.world() - 1) // ranks.world())
    return mine


def at_first(mine: Tensor, most: int, n_rows: int) -> Tensor:
    """[n_rows, ...] on the CPU of rank 0: all ranks' rows, `most` of each but the last; elsewhere
    this rank's."""
    padded = torch.zeros(most, *mine.shape[1:], dtype=mine.dtype)
    padded[: len(mine)] = mine.detach()
    first = ranks.rank() == 0
    every = [torch.empty_like(padded) for _ in range(ranks.world())] if first else None
    dist.gather(padded, every)
    return torch.cat(every)[:n_rows] if every else mine


def _count(what: str, n_bytes: int) -> None:
    # In rings, as both libraries do it: a sum is a scatter and a gather.
    sent[what] += n_bytes


class _Summed(torch.autograd.Function):
    """The sum over ranks of parts whose further way is the same on every rank: each part's gradient
    is then the sum's."""

    @staticmethod
    def forward(ctx, part: Tensor, what: str) -> Tensor:
        return summed(part, what)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        return grads[0], None


def total(part: Tensor, what: str) -> Tensor:
    """`summed`, differentiable; every rank has to compute the same from it."""
    return _Summed.apply(part, what)  # type: ignore[return-value]
