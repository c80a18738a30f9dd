"""Which features of two SAEs fire together on the same tokens.

Shapes: N tokens; A features of one, B of the other; P pairs of features.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch

from saelab import matching

Codes = Any  # scipy.sparse.csr_array [N, F]
BLOCK = 2**23  # pairs of features held at once, if every one of them fired together
LEAST = 0.3  # correlation from which two features may be partners
FEWEST = 10  # tokens a partner fires on: two features that fire once each agree by chance


class Partners(NamedTuple):
    """One-to-one partners by correlation of activations."""

    rows: np.ndarray
    """[M] features of one"""
    columns: np.ndarray
    """[M] features of the other"""
    correlations: np.ndarray
    """[M] Pearson's, over all tokens"""


def partners(one_NA: Codes, other_NB: Codes, *, signed: bool = False) -> Partners:
    """The one-to-one pairing with the highest sum of correlations among pairs of at least LEAST
    (|correlation|, if signed) of features that fire on at least FEWEST tokens.

    >>> paired = partners(codes["a"], codes["b"])
    >>> (paired.correlations > 0.7).sum()
    """
    rows, columns, values = correlated(one_NA, other_NB, signed=signed)
    often = [np.bincount(c.indices, minlength=c.shape[1]) >= FEWEST for c in (one_NA, other_NB)]
    told = often[0][rows] & often[1][columns]
    rows, columns, values = rows[told], columns[told], values[told]
    gains = torch.from_numpy(np.abs(values))
    listed = (torch.from_numpy(rows).long(), torch.from_numpy(columns).long(), gains)
    shape = (one_NA.shape[1], other_NB.shape[1])
    kept = matching.best_pairs(*listed, shape).numpy()
    return Partners(rows[kept], columns[kept], values[kept])


def correlated(
    one_NA: Codes, other_NB: Codes, *, signed: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and correlations of all pairs of features of at least LEAST (|correlation|, if
    signed)."""
    parts = [_correlated(block, signed) for block in _blocks(one_NA, other_NB)]
    rows, columns, values = (np.concatenate(part) for part in zip(*parts, strict=True))
    return rows, columns, values


class _Block(NamedTuple):
    """Some features of one SAE beside all of the other."""

    first: int
    products: Any
    """coo_array [S, B]: sum over tokens of the product of activations"""
    one: np.ndarray
    """[2, S] mean and standard deviation"""
    other: np.ndarray
    """[2, B]"""
    n_tokens: int


def _blocks(one_NA: Codes, other_NB: Codes) -> Iterator[_Block]:
    one_AN = one_NA.astype(np.float64).T.tocsr()
    other_NB = other_NB.astype(np.float64)
    one, other = moments(one_NA), moments(other_NB)
    step = max(1, BLOCK // other_NB.shape[1])
    for first in range(0, one_AN.shape[0], step):
        products = (one_AN[first : first + step] @ other_NB).tocoo()
        yield _Block(first, products, one[:, first : first + step], other, one_NA.shape[0])


def moments(codes_NF: Codes) -> np.ndarray:
    """[2, F]: mean and standard deviation of each feature over all tokens, zeros included."""
    n_tokens, n_features = codes_NF.shape
    values = codes_NF.data.astype(np.float64)
    mean, square = (
        np.bincount(codes_NF.indices, part, n_features) / n_tokens
        for part in (values, np.square(values))
    )
    return np.stack([mean, np.sqrt(np.maximum(square - np.square(mean), 0))])


def _correlated(block: _Block, signed: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows, columns and correlations of a block's pairs of at least LEAST."""
    rows, columns = block.products.row, block.products.col
    covariance = block.products.data / block.n_tokens
    covariance -= block.one[0, rows] * block.other[0, columns]
    scale = block.one[1, rows] * block.other[1, columns]
    correlation = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    high = (np.abs(correlation) if signed else correlation) >= LEAST
    return rows[high] + block.first, columns[high], correlation[high]


def shifted(codes_NF: Codes) -> Codes:
    """The codes of other tokens, half of all away: what fires together with these does so by
    chance."""
    half = codes_NF.shape[0] // 2
    return scipy.sparse.csr_array(
        scipy.sparse.vstack([codes_NF[half:], codes_NF[:half]], format="csr")
    )
