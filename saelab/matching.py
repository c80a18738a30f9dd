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
# Pairs of larger dictionaries that may be partners: of at least this cosine, at most so many a row.
CANDIDATE, PER_ROW = 0.5, 32
BLOCK = 2**24  # cosines of them held at once
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


def partners(one_AD: Tensor, other_BD: Tensor, *, signed: bool = True) -> Matching:
    """`match` of any size: of more than MOST cosines only candidates are paired, those of at least
    CANDIDATE (of each row the PER_ROW highest), one to one with the highest sum among these.

    The rows without a candidate have no partner; M is then less than min(A, B).
    """
    if len(one_AD) * len(other_BD) <= MOST:
        return match(one_AD, other_BD, signed=signed)
    return candidates(one_AD, other_BD, signed=signed)


def candidates(one_AD: Tensor, other_BD: Tensor, *, signed: bool = True) -> Matching:
    """The one-to-one pairing with the highest sum of cosines among the pairs of at least
    CANDIDATE."""
    one_AD, other_BD = (normalize(rows.to(one_AD).float(), dim=1) for rows in (one_AD, other_BD))
    pieces = []
    n = min(PER_ROW, len(other_BD))
    for first in range(0, len(one_AD), step := max(1, BLOCK // len(other_BD))):
        cosine_SB = one_AD[first : first + step] @ other_BD.T
        gain_SB = cosine_SB.abs() if signed else cosine_SB
        gain_SK, column_SK = gain_SB.topk(n, dim=1)
        row_N, place_N = (gain_SK >= CANDIDATE).nonzero(as_tuple=True)
        column_N = column_SK[row_N, place_N]
        pieces.append([row_N + first, column_N, cosine_SB[row_N, column_N]])
    row_N, column_N, cosine_N = (torch.cat(part).cpu() for part in zip(*pieces, strict=True))
    gain_N = cosine_N.abs() if signed else cosine_N
    kept = best_pairs(row_N, column_N, gain_N, (len(one_AD), len(other_BD)))
    return Matching(row_N[kept], column_N[kept], cosine_N[kept])


def best_pairs(row_N: Tensor, column_N: Tensor, gain_N: Tensor, shape: tuple[int, int]) -> Tensor:
    """[M] int64: which of N listed pairs, each with a gain above 0, make up the one-to-one pairing
    with the highest sum of gains; a row may stay alone.

    Jonker and Volgenant's algorithm on the sparse graph, to which every row brings a column of its
    own that gains nothing.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import min_weight_full_bipartite_matching

    if not len(row_N):
        return torch.empty(0, dtype=torch.int64)
    listed, place_N = row_N.unique(return_inverse=True)
    own = torch.arange(len(listed))
    highest = float(gain_N.max()) + 1  # costs are above 0: a 0 is no edge
    cost = torch.cat([highest - gain_N.double(), torch.full((len(listed),), highest)])
    rows, columns = torch.cat([place_N, own]), torch.cat([column_N, shape[1] + own])
    graph = coo_array(
        (cost.numpy(), (rows.numpy(), columns.numpy())), (len(listed), shape[1] + len(listed))
    )
    paired_rows, paired_columns = min_weight_full_bipartite_matching(graph.tocsr())
    wanted = torch.full((len(listed),), -1)
    wanted[torch.from_numpy(paired_rows).long()] = torch.from_numpy(paired_columns).long()
    return (wanted[place_N] == column_N).nonzero(as_tuple=True)[0]


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
