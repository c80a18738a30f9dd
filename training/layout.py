"""How the ranks of a job share a run: each has part of the features and all tokens, or part of the
tokens and all features.

What a rank has only part of is added up where it is needed; every other tensor is the same on all
ranks. Shapes: B tokens, F features, D width, A dead features considered.
"""

from typing import Protocol

import torch
from torch import Tensor

from saelab import kernels, ranks
from saelab.calibration import levels
from saelab.code import Code
from saelab.sparsify import Choice, Sparsify

OF_FEATURES = ("W_enc", "b_enc", "W_dec", "levels", "last")  # have a row or an entry per feature


class Layout(Protocol):
    """`part`: the features that this rank holds."""

    part: slice

    def rows(self, x_BD: Tensor, device: torch.device) -> Tensor:
        """The tokens of a batch that this rank computes on, on its device."""
        ...

    def choose(
        self, x: Tensor, W_enc: Tensor, b_enc: Tensor, sparsify: Sparsify, **options: Tensor | None
    ) -> Code:
        """This rank's part of what `kernels.choose` gives of everything."""
        ...

    def keep_best(self, acts_BA: Tensor, k: int) -> Tensor:
        """[B, A]: the k largest of each token by size, of all ranks' features; 0 elsewhere."""
        ...

    def over_features(self, part: Tensor) -> Tensor:
        """The sum of what each part of the features gives."""
        ...

    def over_tokens(self, mean: Tensor) -> Tensor:
        """The mean over all tokens, of that over this rank's."""
        ...

    def every_token(self, mine_BD: Tensor) -> Tensor:
        """The rows of all tokens of the batch, in order, of those of this rank's tokens."""
        ...

    def once(self, whole: Tensor) -> Tensor:
        """A summand of `over_features` that every rank holds."""
        ...

    def shares(self, name: str) -> bool:
        """Whether a parameter's gradient is the sum of all ranks'."""
        ...

    def fired(self, fired_F: Tensor) -> Tensor:
        """[F] on how many tokens of the batch each feature fired, of this rank's counts."""
        ...

    def mine(self, features_A: Tensor) -> Tensor:
        """Of rising numbers of features those that this rank holds, as numbers of its rows."""
        ...

    def first_levels(self, x_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor, k: int) -> Tensor:
        """The level of `calibration.levels` that lets k pairs per token pass, of a sample that
        every rank has whole; for this rank's features."""
        ...

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        """The tensors of all features, by the names of parameters; None on all ranks but the
        first."""
        ...


class Alone:
    """One process has everything."""

    part = slice(0, None)

    def choose(
        self, x: Tensor, W_enc: Tensor, b_enc: Tensor, sparsify: Sparsify, **options: Tensor | None
    ) -> Code:
        return kernels.choose(x, W_enc, b_enc, sparsify, **options)

    def rows(self, x_BD: Tensor, device: torch.device) -> Tensor:
        return x_BD.to(device)

    def keep_best(self, acts_BA: Tensor, k: int) -> Tensor:
        best = acts_BA.abs().topk(min(k, acts_BA.shape[1]), dim=1, sorted=False).indices
        return torch.zeros_like(acts_BA).scatter(1, best, acts_BA.gather(1, best))

    def over_features(self, part: Tensor) -> Tensor:
        return part

    def over_tokens(self, mean: Tensor) -> Tensor:
        return mean

    def every_token(self, mine_BD: Tensor) -> Tensor:
        return mine_BD

    def once(self, whole: Tensor) -> Tensor:
        return whole

    def shares(self, name: str) -> bool:
        return False

    def fired(self, fired_F: Tensor) -> Tensor:
        return fired_F

    def mine(self, features_A: Tensor) -> Tensor:
        return features_A

    def first_levels(self, x_BD: Tensor, W_enc_FD: Tensor, b_enc_F: Tensor, k: int) -> Tensor:
        return levels([x_BD], W_enc_FD, b_enc_F, Choice(k, "batch"))

    def whole(self, tensors: dict[str, Tensor]) -> dict[str, Tensor] | None:
        return tensors


ALONE = Alone()


def share(x_BD: Tensor) -> Tensor:
    """This rank's share of the tokens of a batch."""
    n_mine = len(x_BD) // ranks.world()
    return x_BD[ranks.rank() * n_mine : (ranks.rank() + 1) * n_mine]
