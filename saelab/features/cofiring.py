"""Which features fire on the same tokens, counted on a sample of the corpus.

Shapes: F features, B sampled tokens, N firings there, K kept per feature. Arrays are numpy.
"""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from saelab.code import Code
from saelab.features.examples import mixed
from saelab.features.groups import best
from saelab.features.schema import COFIRING, N_NEIGHBOURS

MOST = 4_000_000  # firings sampled; a product over them takes a second or so at 32 per token
FLOPS = 2_000_000  # of the product that is held at once
LEAST = 3  # tokens on which two features fire together, to be told of


class Sample:
    """The firings of a uniform sample of whole contexts, as many as make up at most MOST of them.

    A context is in the sample if a number drawn for it is below a rate that halves whenever the
    sample gets too large, so it does not depend on how the corpus comes in chunks.
    """

    def __init__(self, n_features: int, seed: int = 0) -> None:
        self.n_features, self.seed, self.rate = n_features, seed, 1.0
        self.parts: list[tuple[float, NDArray, NDArray]] = []  # draw, features [N], counts [T]
        self.n_firings = 0

    def add(self, code: Code, counted_CT: NDArray, first_context: int) -> None:
        """Offer a chunk of whole contexts."""
        features_N, tokens_N = code.features.cpu().numpy(), code.tokens.cpu().numpy()
        kept = counted_CT.reshape(-1)[tokens_N] & (code.values.float().cpu().numpy() != 0)
        features_N, tokens_N = features_N[kept].astype(np.int32), tokens_N[kept]
        length = counted_CT.shape[1]
        edges = np.searchsorted(tokens_N, np.arange(len(counted_CT) + 1) * length)
        with np.errstate(over="ignore"):
            number_C = np.arange(len(counted_CT), dtype=np.uint64) + np.uint64(first_context)
            draw_C = (mixed(number_C ^ mixed(np.uint64(self.seed))) >> np.uint64(11)) / 2.0**53
        for row in np.flatnonzero(draw_C < self.rate):
            part = slice(edges[row], edges[row + 1])
            count_T = np.bincount(tokens_N[part] - row * length, minlength=length)
            count_T = count_T[counted_CT[row]].astype(np.int32)
            self.parts.append((float(draw_C[row]), features_N[part].copy(), count_T))
            self.n_firings += len(features_N[part])
        while self.n_firings > MOST and len(self.parts) > 1:
            self._halve()

    def _halve(self) -> None:
        self.rate /= 2
        self.parts = [part for part in self.parts if part[0] < self.rate]
        self.n_firings = sum(len(features_N) for _, features_N, _ in self.parts)

    @property
    def n_tokens(self) -> int:
        """B."""
        return sum(len(count_T) for *_, count_T in self.parts)

    def strongest(self) -> Iterator[tuple[NDArray, NDArray]]:
        """The K features that fire most together with each: (records COFIRING [N] by feature,
        strongest first; features [N]), in blocks of features.

        Two features that fire on n and m of the B tokens, and on b of them both, have Jaccard
        b / (n + m - b), by which they are ordered (ties: the lower number), and pointwise mutual
        information log2(b B / (n m)) bits. Pairs with b < LEAST are left out. The sample is emptied
        on the way, as both it and what is made of it would be twice as much.
        """
        from scipy.sparse import csr_matrix

        none = np.zeros(0, np.int32)
        features_N = np.concatenate([none, *(part for _, part, _ in self.parts)])
        starts_B = np.cumsum(np.concatenate([[0], *(count_T for *_, count_T in self.parts)]))
        n_tokens = self.n_tokens
        self.parts, self.n_firings = [], 0
        entries = (np.ones(len(features_N), np.int32), features_N, starts_B)
        fired_BF = csr_matrix(entries, shape=(len(starts_B) - 1, self.n_features))
        fired_FB = fired_BF.T.tocsr()
        n_F = np.diff(fired_FB.indptr)
        # What the product takes for each feature: the firings on the tokens it fires on.
        work_F = fired_FB @ np.diff(starts_B)
        block_F = (np.cumsum(work_F) - work_F) // FLOPS
        edges = np.append(np.flatnonzero(np.diff(block_F, prepend=-1)), self.n_features)
        for first, last in pairwise(edges.tolist()):
            yield _block(fired_FB[first:last] @ fired_BF, first, n_F, n_tokens)


def _block(both: Any, first: int, n_F: NDArray, n_tokens: int) -> tuple[NDArray, NDArray]:
    """The strongest pairs of a block of rows of the matrix of counts."""
    both = both.tocoo()
    row_N, other_N = both.row + first, both.col
    kept = (both.data >= LEAST) & (row_N != other_N)
    row_N, other_N, both_N = row_N[kept], other_N[kept], both.data[kept]
    jaccard_N = both_N / (n_F[row_N] + n_F[other_N] - both_N)
    kept = best(row_N, jaccard_N, N_NEIGHBOURS, other_N)
    records = np.empty(len(kept), COFIRING)
    records["feature"], records["both"] = other_N[kept], both_N[kept]
    records["jaccard"] = jaccard_N[kept]
    n_pairs_N = n_F[row_N[kept]] * n_F[other_N[kept]].astype(np.float64)
    # Counts are int32, whose product with the tokens need not be.
    records["pmi"] = np.log2(both_N[kept].astype(np.float64) * n_tokens / n_pairs_N)
    return records, row_N[kept]
