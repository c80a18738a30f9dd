"""A dictionary whose features the ranks share out: each has some of them, in order, and all
tokens.

Shapes: B tokens, F features, D width, A dead features considered, K candidates per token.
"""

import math

import torch
from torch import Tensor

from saelab import kernels, ranks
from saelab.calibration import MARGIN
from saelab.code import Code
from saelab.kernels.reference import equal_budget
from saelab.sparsify import Choice, Sparsify

from . import collectives, merging
from .layout import OF_FEATURES


class Sharded:
    """Each rank has some of the features, in order, with their moments: for large dictionaries."""

    def __init__(self, n_features: int) -> None:
        self.n_features, self.most = n_features, -(-n_features // ranks.world())
        first = ranks.rank() * self.most
        self.part = slice(first, min(first + self.most, n_features))

    def rows(self, x_BD: Tensor, device: torch.device) -> Tensor:
        return x_BD.to(device)

    def choose(
        self, x: Tensor, W_enc: Tensor, b_enc: Tensor, sparsify: Sparsify, **options: Tensor | None
    ) -> Code:
        if not isinstance(sparsify, Choice):
            return kernels.choose(x, W_enc, b_enc, sparsify, **options)
        if sparsify.over == "feature":
            shares_F = options.pop("budget", None)
            if shares_F is None:
                shares_F = equal_budget(sparsify.k, len(x), self.n_features)
            mine = Choice(1, "feature", sparsify.signed, sparsify.beta)
            options["budget"] = shares_F[self.part].to(x.device)
            return kernels.choose(x, W_enc, b_enc, mine, **options)
        most = min(sparsify.k, len(W_enc))
        mine = Choice(most, sparsify.over, sparsify.signed, sparsify.beta)
        code = kernels.choose(x, W_enc, b_enc, mine, **options)
        boost = {name: options.get(name) for name in ("grad", "W_dec")}
        score_N = kernels.scores(code, x, W_enc, b_enc, mine, **boost)
        if sparsify.over == "token":
            return code.where(merging.of_tokens(score_N.view(-1, most), sparsify.k).view(-1))
        total = sparsify.k * len(x)
        return code.where(merging.of_batch(score_N, code.tokens, len(x), total, by_token=False))

    def keep_best(self, acts_BA: Tensor, k: int) -> Tensor:
        size_BA = acts_BA.detach().abs().float()
        size_BK, best_BK = size_BA.topk(min(k, size_BA.shape[1]), dim=1)
        mask_BK = merging.of_tokens(size_BK, k)
        return torch.zeros_like(acts_BA).scatter(1, best_BK, acts_BA.gather(1, best_BK) * mask_BK)

    def over_features(self, part: Tensor) -> Tensor:
        return collectives.total(part, "reconstructions")

    def over_tokens(self, mean: Tensor) -> Tensor:
        return mean

    def every_token(self, mine_BD: Tensor) -> Tensor:
        return mine_BD

    def once(self, whole: Tensor) -> Tensor:
        return whole * (ranks.rank() == 0)

    def shares(self, name: str) -> bool:
        return name not in OF_FEATURES

    def fired(self, fired_F: Tensor) -> Tensor:
        mine_F = fired_F.new_zeros(self.most, dtype=torch.int32)
        mine_F[: len(fired_F)] = fired_F
        return collectives.gathered(mine_F, "fired").view(-1)[: self.n_features].long()

    def mine(self, features_A: Tensor) -> Tensor:
        here_A = (features_A >= self.part.start) & (features_A < self.part.stop)
        return features_A[here_A] - self.part.start

    def first_levels(self, x_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor, k: int) -> Tensor:
        code = self.choose(x_BD, W_enc_FD, b_enc_F, Choice(k, "batch"))
        none = code.values.new_full((1,), math.inf)
        least = collectives.smallest(torch.cat([code.values, none]).min(), "levels")
        n_pairs = collectives.summed(torch.tensor(len(code.values), device=x_BD.device), "levels")
        level = least * (1 - MARGIN) if n_pairs == k * len(x_BD) else torch.zeros_like(least)
        return level.expand(len(b_enc_F))

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        every = {
            name: collectives.at_first(value, self.most, self.n_features)
            if name in OF_FEATURES
            else value
            for name, value in tensors.items()
        }
        return every if ranks.rank() == 0 else None
