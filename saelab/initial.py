"""The weights an SAE starts from.

Shapes: F features, D width in, E width out.
"""

import torch
from torch import Tensor, nn


def weights(d_model: int, n_features: int, d_out: int, tied: bool, seed: int) -> dict[str, Tensor]:
    """W_enc [F, D] and W_dec [F, E] with random unit rows, the same ones if tied; biases of 0.

    >>> weights(64, 1024, 64, tied=True, seed=0)["W_enc"].shape
    torch.Size([1024, 64])
    """
    rows_FE = _unit_rows(n_features, d_out, seed)
    own_FD = rows_FE.clone() if tied else _unit_rows(n_features, d_model, seed + 1)
    return {
        "W_enc": own_FD,
        "b_enc": torch.zeros(n_features),
        "W_dec": rows_FE,
        "b_dec": torch.zeros(d_out),
    }


def _unit_rows(n_rows: int, width: int, seed: int) -> Tensor:
    return nn.functional.normalize(
        torch.randn(n_rows, width, generator=torch.Generator().manual_seed(seed)), dim=1
    )
