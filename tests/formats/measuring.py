"""What a file's own code makes of tokens, and what our SAE of it does.

Shapes: B tokens, F features, D width.
"""

import numpy as np
import torch

from saelab import SAE
from tests.formats.weights import D, File

TOKENS = np.random.default_rng(0).normal(size=(64, D)).astype(np.float32) * 2 + 0.3


def expected(file: File) -> tuple[np.ndarray, np.ndarray]:
    pairs = [file.function(x.astype(float)) for x in TOKENS]
    return np.stack([y for y, _ in pairs]), np.stack([size for _, size in pairs])


def measured(sae: SAE, x: np.ndarray = TOKENS) -> tuple[np.ndarray, np.ndarray]:
    """Reconstruction [B, D] and the size of what each feature adds [B, F]."""
    with torch.no_grad():
        y_BD, code = sae.reconstruct(torch.from_numpy(x))
        norms_F, sizes_BF = sae.W_dec.norm(dim=1), torch.zeros(len(x), sae.n_features)
        sizes_BF[code.tokens, code.features] = code.values.abs() * norms_F[code.features]
    return y_BD.double().numpy(), sizes_BF.double().numpy()


def off(ours: np.ndarray, theirs: np.ndarray) -> float:
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())
