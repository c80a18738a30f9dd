"""A dictionary that every rank holds whole: each has some of a batch's tokens.

Shapes: B tokens, F features, D width, A dead features considered.
"""

import torch
from torch import Tensor

from saelab import kernels, ranks
from saelab.code import Code
from saelab.sparsify import Choice, Sparsify

from . import collectives, merging
from .layout import ALONE, share


class Replicated:
    """Each rank has the whole dictionary and some of the tokens: for small dictionaries."""

    part = slice(0, None)

    def rows(self, x_BD: Tensor, device: torch.device) -> Tensor:
        return share(x_BD).to(device)

    def choose(
        self, x: Tensor, W_enc: Tensor, b_enc: Tensor, sparsify: Sparsify, **options: Tensor | None
    ) -> Code:
        if not isinstance(sparsify, Choice) or sparsify.over != "batch":
            return kernels.choose(x, W_enc, b_enc, sparsify, **options)
        most = min(sparsify.k * ranks.world(), len(W_enc))
        mine = Choice(most, "batch", sparsify.signed, sparsify.beta)
        code = kernels.choose(x, W_enc, b_enc, mine, **options)
        boost = {name: options.get(name) for name in ("grad", "W_dec")}
        score_N = kernels.scores(code, x, W_enc, b_enc, mine, **boost)
        total = sparsify.k * len(x) * ranks.world()
        return code.where(merging.of_batch(score_N, code.tokens, len(x), total, by_token=True))

    def keep_best(self, acts_BA: Tensor, k: int) -> Tensor:
        return ALONE.keep_best(acts_BA, k)

    def over_features(self, part: Tensor) -> Tensor:
        return part

    def over_tokens(self, mean: Tensor) -> Tensor:
        return collectives.total(mean, "means") / ranks.world()

    def every_token(self, mine_BD: Tensor) -> Tensor:
        return collectives.gathered(mine_BD, "new rows").flatten(0, 1)

    def once(self, whole: Tensor) -> Tensor:
        return whole

    def shares(self, name: str) -> bool:
        return True

    def fired(self, fired_F: Tensor) -> Tensor:
        return collectives.summed(fired_F, "fired")

    def mine(self, features_A: Tensor) -> Tensor:
        return features_A

    def first_levels(self, x_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor, k: int) -> Tensor:
        return ALONE.first_levels(x_BD, W_enc_FD, b_enc_F, k)

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        return tensors if ranks.rank() == 0 else None
