"""Screening: upper bounds of all scores, one tile of features at a time, from a product in low precision.

The tile is the only thing of its size that exists; it and the rounded rows live in buffers that are used again,
because fresh memory costs more time than the product. Shapes: B tokens, F features, D width, K = D + COLUMNS padded, T
features of a tile.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.kernels.bounds import COLUMNS, bound_w, bound_x, combine
from saelab.kernels.vector import BLOCK

_LARGEST = 2.0**126
_ENTRIES = 1 << 22  # of a tile: 8 MB in bfloat16
_buffers: dict[tuple[str, torch.dtype], Tensor] = {}


class Problem(NamedTuple):
    """What `choose` was asked, as contiguous float32 tensors: x [B, D], W [F, D], b [F]; grad [B, D2], W_dec [F, D2]
    if beta > 0.
    """

    x: Tensor
    W: Tensor
    b: Tensor
    signed: bool = False
    beta: float = 0.0
    grad: Tensor | None = None
    W_dec: Tensor | None = None
    offset: np.ndarray | None = None


class Tile(NamedTuple):
    """keys [queries, items] of upper bounds for the features first, first + step, ... (n of them; the rest is
    padding).
    """

    keys: np.ndarray
    first: int
    step: int
    n: int


class _Rounded(NamedTuple):
    rows: Tensor
    slack: np.ndarray
    largest: float


def buffer(name: str, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Uninitialised memory of this shape, the same as in the last call where it fits."""
    size = int(np.prod(shape))
    if (name, dtype) not in _buffers or _buffers[name, dtype].numel() < size:
        _buffers[name, dtype] = torch.empty(size, dtype=dtype)
    return _buffers[name, dtype][:size].view(shape)


def raw(rows: Tensor) -> np.ndarray:
    """The same memory for loops: bfloat16 as its bits."""
    return (rows.view(torch.int16) if rows.dtype == torch.bfloat16 else rows).numpy()


def keys_of(tile: Tensor) -> np.ndarray:
    """The same memory as integers that order like the numbers, where those are positive."""
    return tile.view(torch.int16 if tile.dtype == torch.bfloat16 else torch.int32).numpy()


def padded(n: int, multiple: int) -> int:
    """n rounded up to a multiple."""
    return -(-n // multiple) * multiple


def shift_of(dtype: torch.dtype) -> int:
    """By how many bits a key is shorter than a float32 number."""
    return 16 if dtype == torch.bfloat16 else 0


def _multiply(name: str, x: _Rounded, w: _Rounded, by_feature: bool) -> Tensor:
    left, right = (w.rows, x.rows) if by_feature else (x.rows, w.rows)
    product = buffer(name, (len(left), len(right)), left.dtype)
    return torch.mm(left, right.T, out=product)


def tile_width(n_tokens: int, n_features: int) -> tuple[int, int]:
    """(features per tile, number of tiles)."""
    most = max(BLOCK, min(2048, padded(_ENTRIES // n_tokens, BLOCK)))
    n_tiles = -(-n_features // most)
    return padded(-(-n_features // n_tiles), BLOCK), n_tiles


def _round_x(name: str, x: Tensor, dtype: torch.dtype, bare: bool, multiple: int = 1) -> _Rounded:
    n_rows, width = x.shape
    rows = buffer(name, (padded(n_rows, multiple), padded(width + COLUMNS, 16)), dtype)
    rows[:, width + COLUMNS :] = 0
    rows[n_rows:] = 0
    slack, norms = np.zeros((3, len(rows)), np.float32), np.zeros(n_rows)
    bound_x(x.numpy(), raw(rows), bare, slack, norms)
    return _Rounded(rows, slack, float(norms.max(initial=0)))


def _round_w(name: str, W: Tensor, b: Tensor, dtype: torch.dtype, tile: tuple[int, int, int, int]) -> _Rounded:
    width, first, step, n_rows = tile
    rows = buffer(name, (width, padded(W.shape[1] + COLUMNS, 16)), dtype)
    rows[:, W.shape[1] + COLUMNS :] = 0
    slack, norms = np.empty((3, width), np.float32), np.empty(width)
    bound_w(W.numpy(), b.numpy(), first, step, n_rows, raw(rows), slack, norms)
    return _Rounded(rows, slack, float(norms.max()))


def _offset(problem: Problem, first: int, step: int, n: int, size: int) -> np.ndarray:
    """[size]: what is subtracted from the bounds of a tile's items; infinity where there is no item."""
    offset = np.full(size, np.inf, np.float32)
    offset[:n] = 0 if problem.offset is None else problem.offset[first::step][:n]
    return offset


def _combine(problem: Problem, product: Tensor, boosts: Tensor, sides: list[np.ndarray], offset: np.ndarray) -> None:
    shift = shift_of(product.dtype)
    combine(keys_of(product), keys_of(boosts), *sides, offset, problem.signed, problem.beta, shift)


def tiles(problem: Problem, dtype: torch.dtype, *, by_feature: bool = False, strided: bool = False) -> Iterator[Tile]:
    """Tiles of keys: tokens by features, or (by_feature) features by tokens, padded to whole blocks with keys of at
    most 0.

    strided: tile t holds the features t, t + n_tiles, ..., so that the first one is a sample of them all.
    Raises OverflowError where the numbers are too large for bounds to hold.
    """
    n_tokens, n_features = len(problem.x), len(problem.W)
    width, n_tiles = tile_width(n_tokens, n_features)
    multiple = BLOCK if by_feature else 1
    x = _round_x("x", problem.x, dtype, problem.signed, multiple)
    grad = None if problem.grad is None else _round_x("grad", problem.grad, dtype, True, multiple)
    largest_bias = float(problem.b.abs().max())
    for t in range(n_tiles):
        first, step = (t, n_tiles) if strided else (t * width, 1)
        n = -(-(n_features - first) // step) if strided else min(width, n_features - first)
        if n <= 0:
            return
        w = _round_w("w", problem.W, problem.b, dtype, (width, first, step, n))
        if not x.largest * w.largest + largest_bias < _LARGEST:
            raise OverflowError
        product = _multiply("product", x, w, by_feature)
        if problem.signed or problem.beta or problem.offset is not None:
            boosts, boost_w = product, w
            if grad is not None and problem.W_dec is not None:
                boost_w = _round_w("w", problem.W_dec, torch.zeros(n_features), dtype, (width, first, step, n))
                if not grad.largest * boost_w.largest < _LARGEST:
                    raise OverflowError
                boosts = _multiply("boosts", grad, boost_w, by_feature)
            sides = [x.slack, w.slack, (grad or x).slack, boost_w.slack]
            if by_feature:
                sides = [sides[1], sides[0], sides[3], sides[2]]
            offset = _offset(problem, first, step, n_tokens if by_feature else n, product.shape[1])
            _combine(problem, product, boosts, sides, offset)
        yield Tile(keys_of(product), first, step, n)
