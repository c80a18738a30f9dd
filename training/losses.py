"""Training losses: tensors in, scalar out.

Shapes: B tokens, F features, D width, A dead features considered, K features kept per token, N
pairs.
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from saelab.code import Code
from saelab.kernels import autograd

from .layout import ALONE, Layout


def reconstruction(x_hat_BD: Tensor, x_BD: Tensor, variance: float) -> Tensor:
    """Sum of squared errors per token over `variance` (the mean of ||x - mean||^2 per token): a
    mean predictor scores 1.

    Gao et al. 2024, section 2; the variance is fixed from the first batches, so that the scale does
    not follow the batch.
    """
    return (x_hat_BD - x_BD).square().sum() / (len(x_BD) * variance)


class Nest(NamedTuple):
    """A loss over nested parts of one code: part g holds the pairs whose place is below ends[g],
    and weighs weights[g].

    by "feature": the place is the feature's number; "value": the pair's rank by value within its
    token. main: the part that is the SAE's own code.
    """

    by: Literal["feature", "value"]
    ends: tuple[int, ...]
    weights: tuple[float, ...]
    main: int = -1

    def places(self, code: Code) -> Tensor:
        """[N] int64: the place of each pair."""
        return code.features if self.by == "feature" else code.ranks()

    def own(self, code: Code) -> Code:
        """The pairs of the main part."""
        return code.where(self.places(code) < self.ends[self.main])


def nest(loss: str, k: int, n_features: int, ends: Sequence[int] = ()) -> Nest | None:
    """The nest of a loss's name, None for "plain". ends: its parts' ends but the last, instead of
    the usual ones.

    "matryoshka" (Bussmann et al. 2025, section 3): mean over prefixes of the dictionary, F/16, F/8,
    F/4, F/2, F features. "hierarchical" (Balagansky et al. 2025): mean over the j largest values of
    each token, j = 1 to k. "multi-k" (Gao et al. 2024, section 5.3): the k largest of a code of 4k,
    plus 1/8 of the whole; needs a code of 4k per token.
    """
    if loss == "plain":
        return None
    if loss == "multi-k":
        return Nest("value", (k, 4 * k), (1.0, 1 / 8), main=0)
    by, last = ("feature", n_features) if loss == "matryoshka" else ("value", k)
    usual = [n_features >> i for i in (4, 3, 2, 1)] if by == "feature" else range(1, k)
    whole = (*[end for end in ends or usual if 0 < end < last], last)
    return Nest(by, whole, (1 / len(whole),) * len(whole))


def nested(
    code: Code,
    nest: Nest,
    W_dec_FD: Tensor,
    base_BD: Tensor,
    x_BD: Tensor,
    variance: float,
    layout: Layout = ALONE,
) -> tuple[Tensor, Tensor]:
    """(weighted sum of the parts' reconstruction losses, x_hat [B, D] of the main part).

    Part g decodes to base_BD (what an empty code gives) plus its pairs; each pair is decoded once.
    """
    first = layout.part.start if nest.by == "feature" else 0
    ends = torch.tensor(nest.ends, device=code.features.device) - first
    group_N = torch.bucketize(nest.places(code), ends, right=True)
    total, sum_BD, x_hats = x_BD.new_zeros(()), layout.once(base_BD), []
    for g, weight in enumerate(nest.weights):
        sum_BD = sum_BD + autograd.decode(code.where(group_N == g), W_dec_FD)
        x_hats.append(layout.over_features(sum_BD))
        missed = layout.over_tokens(reconstruction(x_hats[-1], x_BD, variance))
        total = total + weight * missed
    return total, x_hats[nest.main]


def aux_k(
    centred_BD: Tensor,
    error_BD: Tensor,
    W_enc_AD: Tensor,
    b_enc_A: Tensor,
    W_dec_AD: Tensor,
    k: int,
    signed: bool = False,
    layout: Layout = ALONE,
) -> Tensor:
    """How badly the best k dead features per token reconstruct the residual, relative to the
    residual's own variance.

    centred_BD: input x - b_dec; error_BD: x - x_hat; both are taken as constants, and no bias is
    added, so that the loss reaches the dead features' encoder and decoder rows and nothing else.
    Only features with positive pre-activation take part, or, if signed, those with the largest
    |pre|, sign kept. Gao et al. 2024, section A.2. With rows of features that are merely rarer than
    expected it is aux-Zipf (Ayonrinde 2024).
    """
    pre_BA = centred_BD.detach() @ W_enc_AD.T + b_enc_A
    acts_BA = pre_BA if signed else pre_BA.relu()
    codes_BA = layout.keep_best(acts_BA, k)
    target_BD = error_BD.detach()
    x_hat_BD = layout.over_features(codes_BA @ W_dec_AD)
    mean_D = layout.over_tokens(target_BD.mean(0))
    spread = layout.over_tokens((target_BD - mean_D).square().sum())
    missed = layout.over_tokens((x_hat_BD - target_BD).square().sum())
    return torch.nan_to_num(missed / spread, nan=0.0, posinf=0.0)


def l0_target(l0: Tensor, k: float) -> Tensor:
    """(L0 / k - 1)^2 for a differentiable mean L0 (see `saelab.jump.l0`)."""
    return (l0 / k - 1).square()


def l1(code: Code, k: float) -> Tensor:
    """Mean over tokens of sum |value|, over k; decoder rows have unit norm."""
    return code.values.abs().sum() / (code.n_tokens * k)


def tanh(code: Code, k: float, sharpness: float = 4.0) -> Tensor:
    """Mean over tokens of sum tanh(sharpness |value|), a soft L0, over k (Anthropic, Circuits
    Updates, January 2025)."""
    return (sharpness * code.values.abs()).tanh().sum() / (code.n_tokens * k)
