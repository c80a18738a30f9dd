"""Uncentred second moments at the inputs of matrices, and the whitening that follows from them.

Shapes: C contexts, T positions, N tokens, I inputs.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.activations import Cache
from saelab.activations.source import Piece
from saelab.errors import UsageError
from saelab.models import running

TOKENS = 100_000


class Gram(NamedTuple):
    """What was read at a hook."""

    n: int
    """tokens"""
    mean_II: Tensor
    """mean of x x^T, float64"""


def pieces(cache: Cache, split: str, n_tokens: int, at_once: int) -> Iterator[Piece]:
    """The contexts of a cache's split, a few at a time, until n_tokens of them count."""
    left = n_tokens
    for shard in cache.pieces():
        for first in range(0, len(shard.tokens) if shard.split == split else 0, at_once):
            if left <= 0:
                return
            piece = shard.part(slice(first, first + at_once))
            left -= int(piece.counted.sum())
            yield piece


@torch.no_grad()
def grams(
    model: Any,
    cache: Cache,
    hooks: Sequence[str],
    n_tokens: int = TOKENS,
    split: str = "train",
    progress: Callable[[int], object] = lambda done: None,
) -> dict[str, Gram]:
    """Second moments at hooks of the model over the first n_tokens tokens of a cache's split that
    count. Products are added up in float64: what a layer norm gives spans nine orders of magnitude.

        grams(model, Cache("caches/a"), ["blocks.0.attn.hook_in"])

    Raises UsageError where the split has no tokens.
    """
    sums: dict[str, Tensor] = {}
    n_read = 0
    at_once = running.contexts_per_pass(model, cache.context)
    for piece in pieces(cache, split, n_tokens, at_once):
        adding = {hook: partial(_add, sums, hook, piece.counted) for hook in hooks}
        running.read(model, piece.tokens, [hooks[-1]], adding)
        n_read += int(piece.counted.sum())
        progress(n_read)
    if not n_read:
        raise UsageError(f"{cache.path} has no {split} tokens: capture more")
    return {hook: Gram(n_read, total / n_read) for hook, total in sums.items()}


def rows(acts: Tensor, counted_CT: Tensor) -> Tensor:
    """[N, I]: the activations [C, T, ...] of positions that count, heads side by side."""
    return acts.flatten(2)[counted_CT.to(acts.device)]


def _add(sums: dict[str, Tensor], hook: str, counted_CT: Tensor, acts: Tensor) -> None:
    x_NI = rows(acts, counted_CT).double()
    product_II = x_NI.T @ x_NI
    sums[hook] = sums[hook].add_(product_II) if hook in sums else product_II


def summed(grams: Mapping[str, Gram], hooks: Sequence[str]) -> Gram:
    """Of several hooks together: the sum of their moments."""
    several = [grams[hook] for hook in hooks]
    total_II = torch.stack([gram.n * gram.mean_II for gram in several]).sum(0)
    n = sum(gram.n for gram in several)
    return Gram(n, total_II / n)


def whitening(gram: Gram, what: str, ridge: float = 0.0) -> Tensor:
    """L [I, I], lower triangular, with L L^T = the moments plus ridge times their mean square in
    every direction: ||x (W - W')||^2 summed over tokens is n ||L^T (W - W')||^2.

    Raises UsageError with the rank for moments that leave directions out: any change along those
    would cost nothing.
    """
    n_inputs = len(gram.mean_II)
    eye_II = torch.eye(n_inputs, dtype=gram.mean_II.dtype, device=gram.mean_II.device)
    moments_II = gram.mean_II + ridge * gram.mean_II.diagonal().mean() * eye_II
    sizes_I = torch.linalg.eigvalsh(moments_II)
    least = n_inputs * torch.finfo(sizes_I.dtype).eps * float(sizes_I[-1])
    rank = int((sizes_I > least).sum())
    if rank < n_inputs:
        raise UsageError(
            f"the second moments at {what} have rank {rank} of {n_inputs} on {gram.n:,} tokens and "
            "cannot be whitened: give more --tokens, or --ridge 1e-6, the share of the mean square "
            "that is added in every direction"
        )
    return torch.linalg.cholesky(moments_II)
