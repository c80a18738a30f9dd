"""Sums over segments of pairs, long segments in two fixed stages: in pieces, then piece by piece.

Shapes: S segments, N pairs, P pieces, D width.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab.kernels.triton import passes, sizes

_passes: Any = passes  # compiled when launched, with plain numbers for compile-time constants
_LONGEST = 256  # pairs of a segment that one program adds up; longer ones have pieces of so many


class Pieces(NamedTuple):
    """The pieces of the segments that are too long for one program."""

    starts: Tensor
    """[S+1] int64: segment s has the pieces starts[s] to starts[s+1], none if it is short"""
    begins: Tensor
    """[P] int64: where each begins"""
    ends: Tensor
    """[P] int64: where it ends; the last pieces may be empty, as their number is not asked for"""


def pieces(starts: Tensor, n_pairs: int) -> Pieces:
    """Of segments starts[s] to starts[s+1]; the same for the same segments on every card."""
    lengths_S = starts.diff()
    numbers_S = torch.where(lengths_S > _LONGEST, -(lengths_S // -_LONGEST), 0)
    piece_starts = torch.cat([numbers_S.new_zeros(1), numbers_S.cumsum(0)])
    places_P = torch.arange(2 * n_pairs // _LONGEST + 1, device=starts.device)
    segment_P = torch.searchsorted(piece_starts, places_P, right=True) - 1
    there_P = segment_P < len(lengths_S)
    segment_P = segment_P.clamp_max(len(lengths_S) - 1)
    begin_P = starts[segment_P] + (places_P - piece_starts[segment_P]) * _LONGEST
    end_P = torch.minimum(begin_P + _LONGEST, starts[segment_P + 1])
    return Pieces(piece_starts, torch.where(there_P, begin_P, 0), torch.where(there_P, end_P, 0))


def piece_sums(parts: Pieces, rows: Tensor, values: Tensor, matrix: Tensor) -> Tensor:
    """[P, D]: the sum of every piece."""
    return _sums(parts.begins, parts.ends, None, matrix, rows, values, matrix)


def sums(starts: Tensor, rows: Tensor, values: Tensor, matrix: Tensor) -> Tensor:
    """[S, D]: sum over the places of each segment, in order, of values[place] x
    matrix[rows[place]]."""
    matrix, values = matrix.contiguous(), values.contiguous()
    parts = pieces(starts, len(rows))
    finished = piece_sums(parts, rows, values, matrix)
    return _sums(starts[:-1], starts[1:], parts.starts, finished, rows, values, matrix)


def _sums(
    begins: Tensor, ends: Tensor, piece_starts: Tensor | None, finished: Tensor, rows: Tensor,
    values: Tensor, matrix: Tensor,
) -> Tensor:  # fmt: skip
    n, width, s = len(begins), matrix.shape[1], sizes.here()
    out = torch.empty(n, width, device=matrix.device)
    block = min(s.summed, sizes.power(width))
    if n:
        _passes.segment_sums[(n, -(-width // block))](
            begins, ends, begins if piece_starts is None else piece_starts, finished, rows, values,
            matrix, out, width, piece_starts is not None, block, s.together,
            **s.launch(max(1, block // 256)),
        )  # fmt: skip
    return out


def counts(starts: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Per segment of places the sum of its values, and how many are not 0 (int64)."""
    n, s = len(starts) - 1, sizes.here()
    total = torch.empty(n, device=values.device)
    fired = torch.empty(n, dtype=torch.int64, device=values.device)
    _passes.segment_counts[(n,)](starts, values, total, fired, 128, **s.launch(1))
    return total, fired
