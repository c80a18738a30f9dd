"""Sums over the tokens of each document, so that documents can be resampled.

Shapes: N tokens, G documents, M summed columns, R resamples.
"""

from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor

from saelab.statistics import bootstrap


class DocumentSums:
    """Running sums [M] of the columns of each document's tokens."""

    def __init__(self) -> None:
        self.rows: dict[int, np.ndarray] = {}

    def add(self, owners: Tensor, columns: Tensor) -> None:
        """Add per-token columns [N, M] to the rows of their documents [N]."""
        names, group_N = owners.unique(return_inverse=True)
        sums_GM = torch.zeros(len(names), columns.shape[1], dtype=torch.float64).index_add_(
            0, group_N, columns.double()
        )
        for name, row in zip(names.tolist(), sums_GM.numpy(), strict=True):
            self.rows[name] = self.rows.get(name, 0) + row

    def table(self, documents: Iterable[int] | None = None) -> np.ndarray:
        """[G, M]: rows of these documents (0 for one without tokens; default: all in ascending
        order)."""
        empty = np.zeros_like(next(iter(self.rows.values())))
        return np.stack(
            [
                self.rows.get(name, empty)
                for name in (sorted(self.rows) if documents is None else documents)
            ]
        )


def interval(
    owners: Tensor, columns: Tensor, statistic: Callable[[np.ndarray], np.ndarray], seed: int = 0
) -> tuple[float, float, float]:
    """(value, low, high): a statistic of the total sums [..., M] of per-token columns [N, M], 95%
    over resampled documents."""
    sums = DocumentSums()
    sums.add(owners, columns)
    table_GM = sums.table()
    return bootstrap.interval(table_GM, statistic, bootstrap.weights(len(table_GM), seed))


def field(
    sums: np.ndarray,
    statistic: Callable[[np.ndarray], np.ndarray],
    weights: np.ndarray,
    null: float | None = None,
) -> dict:
    """A statistic of sums [G, M] with its 95% interval over documents, resampled by weights [R, G],
    and its null."""
    value, low, high = bootstrap.interval(sums, statistic, weights)
    return {"value": value, "low": low, "high": high, "null": null}
