"""Orthogonal matching pursuit for codes that use a large part of a small dictionary.

`pursue` looks at the dictionary's rows, and its basis is as wide as the signal; a matrix's columns
take half of the atoms, a hundred steps or more. Here everything is a product of atoms with each
other: the inverse of a Cholesky factor grows by a row a step (Rubinstein, Zibulevsky and Elad
2008, "Efficient implementation of the K-SVD algorithm using batch orthogonal matching pursuit").

Shapes: O signals, I their width, K atoms, S steps.
"""

import numba
import numpy as np
import torch
from torch import Tensor

from saelab.dictionaries.pursuit import pursue
from saelab.kernels.cpu.jit import compiled, threads

SPANNED = 1e-6  # of an atom's squared norm outside the span of those chosen: it is in it


def pursuit(signals_OI: Tensor, atoms_KI: Tensor, n_steps: int) -> Tensor:
    """Codes [O, K] of n_steps atoms of unit norm each, solved for exactly.

    codes_OK = pursuit(columns, atoms, 8)
    """
    if signals_OI.device.type != "cpu":
        code = pursue(signals_OI, atoms_KI, n_steps, "orthogonal").code
        return code.to_dense()
    gram_KK, products_OK = atoms_KI @ atoms_KI.T, signals_OI @ atoms_KI.T
    codes_OK = torch.zeros_like(products_OK)
    with threads():
        _pursue(gram_KK.numpy(), products_OK.numpy(), n_steps, codes_OK.numpy())
    return codes_OK


@compiled(parallel=True, reorder=True)
def _pursue(gram, products, n_steps, codes):
    n_atoms = len(gram)
    for o in numba.prange(len(products)):
        left = products[o].copy()  # products with the residual
        free = np.ones(n_atoms, np.bool_)
        chosen = np.empty(n_steps, np.int64)
        beside = np.empty(n_steps, gram.dtype)
        along = np.empty(n_steps, gram.dtype)
        # Row i, lower triangular: R^-T for R^T R the chosen atoms' products with each other.
        inverse = np.empty((n_steps, n_steps), gram.dtype)
        n = 0
        for _ in range(n_steps):
            best, size = -1, gram.dtype.type(0)
            for k in range(n_atoms):
                if free[k] and abs(left[k]) > size:
                    best, size = k, abs(left[k])
            if best < 0:
                break
            free[best] = False
            for i in range(n):
                beside[i] = gram[best, chosen[i]]
            rest = gram[best, best]
            for i in range(n):
                total = gram.dtype.type(0)
                for j in range(i + 1):
                    total += inverse[i, j] * beside[j]
                rest -= total * total
                along[i] = total
            if rest < SPANNED:
                continue
            beside[:n] = 0  # from here on: the new atom's coefficients over the chosen ones
            for i in range(n):
                for j in range(i + 1):
                    beside[j] += along[i] * inverse[i, j]
            gain = left[best] / rest
            for k in range(n_atoms):
                left[k] -= gain * gram[best, k]
            for i in range(n):
                weight, row = gain * beside[i], chosen[i]
                codes[o, row] -= weight
                for k in range(n_atoms):
                    left[k] += weight * gram[row, k]
            codes[o, best] = gain
            length = np.sqrt(rest)
            for i in range(n):
                inverse[n, i] = -beside[i] / length
            inverse[n, n] = 1 / length
            chosen[n] = best
            n += 1
