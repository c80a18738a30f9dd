"""What a feature has several of: records in a file, each feature's cut out as one blob.

Shapes: G groups (features, or tokens), N records.
"""

from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from saelab.features.packing import pack
from saelab.features.spool import Spool


class Lists:
    """Records of one dtype by group, which lie in a file while they come group by group.

    >>> lists = Lists(folder / "tokens", STRONG, n_features)
    >>> lists.add(records_N, feature_N)
    >>> blob_of_feature_0, blob_of_feature_1 = lists.blobs(0, 2)
    """

    def __init__(self, path: Path, dtype: np.dtype, n_groups: int) -> None:
        self.spool = Spool(path, dtype)
        self.count_G = np.zeros(n_groups, np.int64)

    def add(self, records_N: NDArray, group_N: NDArray) -> None:
        """Append records by the groups they are of, which ascend over all calls."""
        self.spool.append(records_N)
        self.count_G += np.bincount(group_N, minlength=len(self.count_G))

    def blobs(self, first: int, last: int) -> list[bytes]:
        """The bytes of the records of groups first to last, a blob for each."""
        count_G, before = self.count_G[first:last], int(self.count_G[:first].sum())
        raw = self.spool.rows(before, before + int(count_G.sum())).tobytes()
        edges = np.append(0, count_G.cumsum()) * self.spool.dtype.itemsize
        return [raw[start:end] for start, end in pairwise(edges.tolist())]

    def packed(self, first: int, last: int) -> list[bytes]:
        """The same, packed."""
        return [pack(blob, self.spool.dtype.itemsize) for blob in self.blobs(first, last)]
