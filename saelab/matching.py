"""Which row of one dictionary is which row of another: one to one, and against chance.

Shapes: A rows of one, B of the other, M = min(A, B) pairs, D width.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import normalize

from saelab.statistics.draws import stream

# Cosines of which the best pairing is sought: 3 s at 4096 x 4096, 30 s at twice that.
MOST = 8192**2
# Cosine from which a feature counts as found again (Paulo and Belrose 2025, arXiv 2501.16615).
FOUND = 0.7


class Matching(NamedTuple):
    """Partners, one to one."""

    rows: Tensor
    """[M] int64, of one dictionary"""
    columns: Tensor
    """[M] int64, of the other"""
    cosines: Tensor
    """[M] of the two, with sign"""


class Stability(NamedTuple):
    """How much of one dictionary is in another."""

    mean: float
    """mean cosine of partners"""
    found: float
    """share of partners above FOUND"""
    null_mean: float
    """mean cosine with random rows as the second"""
    null_found: float
    """share above FOUND with random rows as the second"""


def match(one_AD: Tensor, other_BD: Tensor, *, signed: bool = True) -> Matching:
    """The one-to-one pairing of rows with the highest sum of cosines (|cosine|, if signed: a row
    and its negative are one axis).

    The Hungarian algorithm; rows of the larger dictionary are left over. Rows of norm 0 have cosine
    0 with every row.
    """
    from scipy.optimize import linear_sum_assignment

    one_AD, other_BD = (normalize(rows.to(one_AD).float(), dim=1) for rows in (one_AD, other_BD))
    cosine_AB = (one_AD @ other_BD.T).cpu()
    gain_AB = cosine_AB.abs() if signed else cosine_AB
    rows, columns = (
        torch.from_numpy(index) for index in linear_sum_assignment(gain_AB.numpy(), maximize=True)
    )
    return Matching(rows, columns, cosine_AB[rows, columns])


def mcc(W_AD: Tensor, truth_BD: Tensor) -> float:
    """Mean |cosine| of matched rows (mean correlation coefficient): 1 where every row, or every
    true direction, is found exactly.

    Its null is high in few dimensions: about sqrt(2 ln B / D), less a little; see null_mcc.
    """
    return float(match(W_AD, truth_BD).cosines.abs().mean())


def random_rows(n: int, width: int, seed: int = 0) -> Tensor:
    """[n, width]: unit rows, uniform on the sphere."""
    return normalize(torch.randn(n, width, generator=stream("rows", seed)), dim=1)


def null_mcc(n_rows: int, truth_BD: Tensor, seed: int = 0) -> float:
    """The MCC that n_rows random unit rows have with the true directions."""
    return mcc(random_rows(n_rows, truth_BD.shape[1], seed), truth_BD)


def stability(
    one_AD: Tensor, other_BD: Tensor, *, signed: bool = False, seed: int = 0
) -> Stability:
    """How much of a dictionary another one, such as another seed's, has found too.

    Signed dictionaries are compared by |cosine|. The null replaces the second by random unit rows
    of its shape.
    """
    parts = []
    for rows_BD in (other_BD, random_rows(other_BD.shape[0], other_BD.shape[1], seed)):
        cosines_M = match(one_AD, rows_BD, signed=signed).cosines
        cosines_M = cosines_M.abs() if signed else cosines_M
        parts += [float(cosines_M.mean()), float((cosines_M > FOUND).float().mean())]
    return Stability(*parts)
