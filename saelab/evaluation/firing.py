"""How often each feature fires in each document.

Shapes: G documents, F features, B tokens.
"""

import numpy as np
import scipy.sparse
from torch import Tensor

from saelab.code import Code


class Firings:
    """Running counts, over codes, of the tokens of each document on which each feature fires."""

    def __init__(self, n_features: int) -> None:
        self.n_features = n_features
        self.parts: list[tuple[np.ndarray, scipy.sparse.csr_array]] = []

    def add(self, owners_B: Tensor, code: Code) -> None:
        """Count the pairs of a code that fired (value != 0), tokens [B] of these documents."""
        documents, group_B = owners_B.unique(return_inverse=True)
        on = code.values != 0
        rows, columns = group_B[code.tokens[on]].numpy(), code.features[on].numpy()
        shape = (len(documents), self.n_features)
        ones = np.ones(len(rows), dtype=np.int32)
        counts = scipy.sparse.coo_array((ones, (rows, columns)), shape).tocsr()
        self.parts.append((documents.numpy(), counts))

    def table(self, documents: list[int]) -> scipy.sparse.csr_array:
        """[G, F]: tokens of each of these documents (ascending) on which each feature fired."""
        owners = np.concatenate([part for part, _ in self.parts])
        counts = scipy.sparse.vstack([part for _, part in self.parts]).tocsr()
        place = (np.searchsorted(documents, owners), np.arange(len(owners)))
        ones = np.ones(len(owners), dtype=np.int32)
        return scipy.sparse.csr_array((ones, place), (len(documents), len(owners))) @ counts
