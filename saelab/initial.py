"""The weights an SAE starts from, of all its features or of some.

Shapes: F features, D width in, E width out.
"""

import torch
from torch import Tensor, nn

TOGETHER = 1 << 14  # rows drawn at once; a multiple of 16, as torch draws numbers by sixteens


def weights(
    d_model: int, n_features: int, d_out: int, tied: bool, seed: int, part: slice = slice(None)
) -> dict[str, Tensor]:
    """W_enc [F, D] and W_dec [F, E] with random unit rows, the same ones if tied; biases of 0; or
    those of a part of the features.

    >>> weights(64, 1024, 64, tied=True, seed=0)["W_enc"].shape
    torch.Size([1024, 64])
    """
    rows_FE = _unit_rows(n_features, d_out, seed, part)
    own_FD = rows_FE.clone() if tied else _unit_rows(n_features, d_model, seed + 1, part)
    return {
        "W_enc": own_FD,
        "b_enc": torch.zeros(len(own_FD)),
        "W_dec": rows_FE,
        "b_dec": torch.zeros(d_out),
    }


def _unit_rows(n_rows: int, width: int, seed: int, part: slice) -> Tensor:
    """Drawn piece by piece: a part gets the numbers that it has in the whole, without the memory
    for all of them."""
    generator = torch.Generator().manual_seed(seed)
    first, last, _ = part.indices(n_rows)
    pieces = []
    for start in range(0, last, TOGETHER):
        size = min(TOGETHER, n_rows - start)
        rows_RD = torch.randn(size, width, generator=generator)
        pieces.append(rows_RD[max(0, first - start) : max(0, last - start)])
    return nn.functional.normalize(torch.cat(pieces), dim=1)
