"""Screening: upper bounds of all scores, one tile of features at a time, from a product in low
precision.

The tile is the only thing of its size that exists; it and the rounded rows live in buffers that are
used again, because fresh memory costs more time than the product. Shapes: B tokens, F features, D
width, K = D + COLUMNS padded, T features of a tile.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab.kernels import check_finite
from saelab.kernels.cpu.screen.bounds import COLUMNS, bound_w, bound_x, combine
from saelab.kernels.cpu.vector import BLOCK

_LARGEST = 2.0**126
_WIDEST = 2048  # features of a tile, at most
_ENTRIES = 1 << 22  # of a tile: 8 MB in bfloat16
_buffers: dict[tuple[str, torch.dtype], Tensor] = {}


class Problem(NamedTuple):
    """What `choose` was asked, as contiguous float32 tensors.

    x [B, D], W [F, D], b [F]; grad [B, E], W_dec [F, E] if beta > 0; offset [F]: see
    `bounds.combine`; shadow: see `shadow_of`.
    """

    x: Tensor
    W: Tensor
    b: Tensor
    signed: bool = False
    beta: float = 0.0
    grad: Tensor | None = None
    W_dec: Tensor | None = None
    offset: np.ndarray | None = None
    shadow: "Rounded | None" = None


class Rounded(NamedTuple):
    """Rows in low precision with their columns, their slacks [3, rows] and norms [rows]; of W: laid
    out as strided tiles."""

    rows: Tensor
    slack: np.ndarray
    norms: np.ndarray
    width: int = 0


class Tile(NamedTuple):
    """keys [queries, items] of upper bounds for the features first, first + step, ... (n of them;
    the rest is padding).
    """

    keys: np.ndarray
    first: int
    step: int
    n: int


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


def _multiply(name: str, x: Rounded, w: Rounded, by_feature: bool) -> Tensor:
    left, right = (w.rows, x.rows) if by_feature else (x.rows, w.rows)
    product = buffer(name, (len(left), len(right)), left.dtype)
    return torch.mm(left, right.T, out=product)


def tile_width(n_tokens: int, n_features: int) -> tuple[int, int]:
    """(features per tile, number of tiles)."""
    most = max(BLOCK, min(_WIDEST, padded(_ENTRIES // n_tokens, BLOCK)))
    n_tiles = -(-n_features // most)
    return padded(-(-n_features // n_tiles), BLOCK), n_tiles


def _round_x(name: str, x: Tensor, dtype: torch.dtype, bare: bool, multiple: int = 1) -> Rounded:
    n_rows, width = x.shape
    rows = buffer(name, (padded(n_rows, multiple), padded(width + COLUMNS, 16)), dtype)
    rows[:, width + COLUMNS :] = 0
    rows[n_rows:] = 0
    slack, norms = np.zeros((3, len(rows)), np.float32), np.zeros(len(rows))
    bound_x(x.numpy(), raw(rows), bare, slack, norms)
    return Rounded(rows, slack, norms)


def _round_w(
    name: str, W: Tensor, b: Tensor, dtype: torch.dtype, width: int, first: int, step: int, n: int
) -> Rounded:
    rows = buffer(name, (width, padded(W.shape[1] + COLUMNS, 16)), dtype)
    rows[:, W.shape[1] + COLUMNS :] = 0
    slack, norms = np.empty((3, width), np.float32), np.empty(width)
    bound_w(W.numpy(), b.numpy(), first, step, n, raw(rows), slack, norms)
    return Rounded(rows, slack, norms)


def shadow_of(W: Tensor, b: Tensor, n_tokens: int) -> Rounded:
    """All of W in bfloat16, tile after strided tile; whoever changes a row of W or b must change
    its row here."""
    width, n_tiles = tile_width(n_tokens, len(W))
    rows = torch.zeros(n_tiles * width, padded(W.shape[1] + COLUMNS, 16), dtype=torch.bfloat16)
    shadow = Rounded(rows, np.zeros((3, len(rows)), np.float32), np.zeros(len(rows)), width)
    for t in range(n_tiles):
        tile = slice(t * width, (t + 1) * width)
        n = -(-(len(W) - t) // n_tiles)
        out = (raw(rows[tile]), shadow.slack[:, tile], shadow.norms[tile])
        bound_w(W.numpy(), b.numpy(), t, n_tiles, n, *out)
    return shadow


def _largest(name: str, tensor: Tensor, rounded: Rounded) -> float:
    """The largest norm. Raises FloatingPointError where it is not finite."""
    largest = float(rounded.norms.max(initial=0))
    if not np.isfinite(largest):
        check_finite(name, tensor)
    return largest


def _tile_of_w(
    problem: Problem, dtype: torch.dtype, width: int, first: int, step: int, n: int
) -> Rounded:
    shadow = problem.shadow
    if shadow is None or dtype != shadow.rows.dtype:
        return _round_w("w", problem.W, problem.b, dtype, width, first, step, n)
    tile = slice(first * width, (first + 1) * width)
    return Rounded(
        shadow.rows[tile], np.ascontiguousarray(shadow.slack[:, tile]), shadow.norms[tile]
    )


def _offset(problem: Problem, first: int, step: int, n: int, size: int) -> np.ndarray:
    """[size]: what is subtracted from the bounds of a tile's items; infinity where there is no
    item."""
    offset = np.full(size, np.inf, np.float32)
    offset[:n] = 0 if problem.offset is None else problem.offset[first::step][:n]
    return offset


def _combine(
    problem: Problem, product: Tensor, boosts: Tensor, sides: list[np.ndarray], offset: np.ndarray
) -> None:
    shift = shift_of(product.dtype)
    combine(keys_of(product), keys_of(boosts), *sides, offset, problem.signed, problem.beta, shift)


def tiles(
    problem: Problem, dtype: torch.dtype, *, by_feature: bool = False, strided: bool = False
) -> Iterator[Tile]:
    """Tiles of keys: tokens by features, or (by_feature) features by tokens, padded to whole blocks
    with keys of at most 0.

    strided: tile t holds the features t, t + n_tiles, ..., so that the first one is a sample of
    them all. Raises OverflowError where the numbers are too large for bounds to hold.
    """
    n_tokens, n_features = len(problem.x), len(problem.W)
    width, n_tiles = tile_width(n_tokens, n_features)
    if not strided:
        problem = problem._replace(shadow=None)
    if problem.shadow is not None:
        width, n_tiles = problem.shadow.width, len(problem.shadow.rows) // problem.shadow.width
    multiple = BLOCK if by_feature else 1
    x = _round_x("x", problem.x, dtype, problem.signed, multiple)
    grad = None if problem.grad is None else _round_x("grad", problem.grad, dtype, True, multiple)
    # |x . w| <= |x| |w|: below this limit no product, bias added, overflows to an infinite bound.
    limit = _LARGEST - float(problem.b.abs().max())
    for t in range(n_tiles):
        first, step = (t, n_tiles) if strided else (t * width, 1)
        n = -(-(n_features - first) // step) if strided else min(width, n_features - first)
        if n <= 0:
            return
        w = _tile_of_w(problem, dtype, width, first, step, n)
        if not _largest("x", problem.x, x) * _largest("W_enc", problem.W, w) < limit:
            raise OverflowError
        product = _multiply("product", x, w, by_feature)
        if problem.signed or problem.beta or problem.offset is not None:
            boosts, boost_x, boost_w = product, x, w
            if grad is not None and problem.grad is not None and problem.W_dec is not None:
                boost_x = grad
                boost_w = _round_w(
                    "w_dec", problem.W_dec, torch.zeros(n_features), dtype, width, first, step, n
                )
                norms = _largest("grad", problem.grad, grad)
                norms *= _largest("W_dec", problem.W_dec, boost_w)
                if not norms < _LARGEST:
                    raise OverflowError
                boosts = _multiply("boosts", grad, boost_w, by_feature)
            sides = [w.slack, x.slack, boost_w.slack, boost_x.slack]
            if not by_feature:
                sides = [x.slack, w.slack, boost_x.slack, boost_w.slack]
            offset = _offset(problem, first, step, n_tokens if by_feature else n, product.shape[1])
            _combine(problem, product, boosts, sides, offset)
        yield Tile(keys_of(product), first, step, n)
