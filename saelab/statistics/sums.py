"""Sums over the tokens of each document, so that documents can be resampled.

Shapes: N tokens, G documents, D width.
"""

from collections.abc import Callable, Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from saelab.statistics.bootstrap import over_documents, weights
from saelab.statistics.estimate import Estimate


class DocumentSums:
    """Running sums by document of columns that are named; each of them may cover its own tokens.

    >>> sums = DocumentSums()
    >>> sums.add(owners_N, {"tokens": torch.ones(n), "error": error_N, "x": x_ND})
    """

    def __init__(self) -> None:
        self.rows: dict[str, dict[int, np.ndarray]] = {}

    def add(self, owners_N: Tensor, columns: Mapping[str, Tensor]) -> None:
        """Add per-token columns, [N] or [N, D] each, to the sums of their documents [N]; each
        column is added up on its own device."""
        documents, group_N = owners_N.unique(return_inverse=True)
        for name, column in columns.items():
            sums = column.new_zeros(len(documents), *column.shape[1:], dtype=torch.float64)
            sums = sums.index_add_(0, group_N.to(column.device), column.double()).cpu()
            rows = self.rows.setdefault(name, {})
            for document, row in zip(documents.tolist(), sums.numpy(), strict=True):
                rows[document] = rows.get(document, 0) + row

    @property
    def documents(self) -> list[int]:
        """Every document that a token was added of, ascending."""
        return sorted(set().union(*self.rows.values()))

    def table(self, documents: Iterable[int] | None = None) -> dict[str, np.ndarray]:
        """[G] or [G, D] by name: rows of these documents (0 for one without tokens; default:
        `self.documents`)."""
        documents = self.documents if documents is None else list(documents)
        table = {}
        for name, rows in self.rows.items():
            empty = np.zeros_like(next(iter(rows.values())))
            table[name] = np.stack([rows.get(document, empty) for document in documents])
        return table


def of_tokens(
    owners_N: Tensor,
    columns: Mapping[str, Tensor],
    statistic: Callable[[dict[str, np.ndarray]], np.ndarray],
    seed: int = 0,
    null: float | None = None,
) -> Estimate:
    """A statistic of the total sums of per-token columns, with its interval over documents [N]."""
    sums = DocumentSums()
    sums.add(owners_N, columns)
    weights_RG = weights(len(sums.documents), seed)
    return over_documents(sums.table(), statistic, weights_RG, null)
