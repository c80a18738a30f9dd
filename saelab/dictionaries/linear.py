"""Dictionaries whose codes are plain scores: of each token the k largest in absolute value are
kept, so that they are SAEs like any other.

Shapes: N tokens, F features, D width.
"""

import warnings

import numpy as np
import torch
from torch import Tensor

from saelab import initial
from saelab.dictionaries.frank_wolfe import frank_wolfe


def pca(x_ND: Tensor) -> Tensor:
    """[D, D]: the principal axes of centred tokens as rows, by falling variance."""
    covariance_DD = (x_ND.double().T @ x_ND.double()) / len(x_ND)
    return torch.linalg.eigh(covariance_DD).eigenvectors.flip(1).T.to(x_ND).contiguous()


def ica(x_ND: Tensor, seed: int, most: int = 100) -> tuple[Tensor, Tensor]:
    """(W_enc [D, D], W_dec [D, D]): scikit-learn's FastICA in up to `most` steps; its mixing
    directions as rows of unit norm, and what it unmixes with at that scale."""
    from sklearn.decomposition import FastICA
    from sklearn.exceptions import ConvergenceWarning

    model = FastICA(whiten="unit-variance", max_iter=most, tol=1e-3, random_state=seed)
    with warnings.catch_warnings():
        # The last step's dictionary is taken: to converge to the last digit is not needed.
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(x_ND.double().cpu().numpy())
    mixing_DD = np.asarray(model.mixing_).T
    norm_D1 = np.linalg.norm(mixing_DD, axis=1, keepdims=True).clip(1e-20)
    unmixing_DD = np.asarray(model.components_) * norm_D1
    return torch.from_numpy(unmixing_DD).to(x_ND), torch.from_numpy(mixing_DD / norm_D1).to(x_ND)


def random_rows(x_ND: Tensor, n_features: int, seed: int) -> Tensor:
    """[F, D]: random unit rows."""
    width = x_ND.shape[1]
    return initial.weights(width, n_features, width, True, seed)["W_dec"].to(x_ND)


def neurons(x_ND: Tensor) -> Tensor:
    """[D, D]: the activation's own coordinates."""
    return torch.eye(x_ND.shape[1]).to(x_ND)


def orthogonal(x_ND: Tensor, seed: int) -> Tensor:
    """[D, D]: the orthogonal matrix in which tokens are sparse; see `frank_wolfe`."""
    return frank_wolfe(x_ND, seed=seed).W
