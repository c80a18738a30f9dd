"""What an evaluation adds up: sums over tokens by document, from which every metric and its
interval follow.

Shapes: D width, F features, G documents, M summed columns, B tokens.
"""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from saelab.code import Code
from saelab.evaluation import metrics


class Tally:
    """Sums over tokens per document for one reconstruction, and which features fired in which
    document."""

    def __init__(self, n_features: int, width: int) -> None:
        self.rows: dict[int, np.ndarray] = {}
        self.width, self.n_features = width, n_features
        self.fired: list[tuple[np.ndarray, np.ndarray]] = []

    def add(
        self, documents: np.ndarray, columns: dict[str, np.ndarray], x: Tensor | None = None
    ) -> None:
        """Add per-token columns [n] (and x [n, D]) to the rows of their documents [n]."""
        names, inverse = np.unique(documents, return_inverse=True)
        table = np.zeros((len(names), metrics.N_COLUMNS + self.width))
        for name, values in columns.items():
            table[:, metrics.COLUMNS.index(name)] = np.bincount(
                inverse, values, minlength=len(names)
            )
        if x is not None:
            groups = torch.from_numpy(inverse)
            sums_GD = torch.zeros(len(names), x.shape[1], dtype=torch.float64).index_add_(
                0, groups, x.double()
            )
            table[:, metrics.N_COLUMNS :] = sums_GD.numpy()
        for name, row in zip(names.tolist(), table, strict=True):
            self.rows[name] = self.rows.get(name, 0) + row

    def add_code(self, documents: np.ndarray, code: Code) -> None:
        """Count the pairs of `code` that fired, by document [B] and feature."""
        on = (code.values != 0).numpy()
        self.fired.append((documents[code.tokens.numpy()[on]], code.features.numpy()[on]))

    def sums(self) -> np.ndarray:
        """[G, M], documents in ascending order."""
        return np.stack([self.rows[name] for name in sorted(self.rows)])

    def fired_counts(self) -> scipy.sparse.csr_array:
        """[G, F]: on how many tokens of each document each feature fired."""
        documents = np.searchsorted(sorted(self.rows), np.concatenate([d for d, _ in self.fired]))
        features = np.concatenate([f for _, f in self.fired])
        ones = np.ones(len(features))
        return scipy.sparse.coo_array(
            (ones, (documents, features)), (len(self.rows), self.n_features)
        ).tocsr()
