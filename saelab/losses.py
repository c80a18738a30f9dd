"""Training losses: tensors in, scalar out.

Shapes: B tokens, F features, D width, A dead features considered, K features kept per token.
"""

import torch
from torch import Tensor


def reconstruction(x_hat_BD: Tensor, x_BD: Tensor, variance: float) -> Tensor:
    """Sum of squared errors per token over `variance` (the mean of ||x - mean||^2 per token): a mean predictor scores 1.

    Gao et al. 2024, section 2; the variance is fixed from the first batches, so that the scale does not follow the batch.
    """
    return (x_hat_BD - x_BD).square().sum() / (len(x_BD) * variance)


def aux_k(centred_BD: Tensor, error_BD: Tensor, W_enc_AD: Tensor, b_enc_A: Tensor, W_dec_AD: Tensor, k: int) -> Tensor:
    """How badly the best k dead features per token reconstruct the residual, relative to the residual's own variance.

    centred_BD: input x - b_dec; error_BD: x - x_hat; both are taken as constants, and no bias is added, so that the loss reaches
    the dead features' encoder and decoder rows and nothing else. Only features with positive pre-activation take part.
    Gao et al. 2024, section A.2.
    """
    pre_BA = (centred_BD.detach() @ W_enc_AD.T + b_enc_A).relu()
    best = pre_BA.topk(min(k, pre_BA.shape[1]), dim=1)
    codes_BA = torch.zeros_like(pre_BA).scatter(1, best.indices, best.values)
    target_BD = error_BD.detach()
    spread = (target_BD - target_BD.mean(0)).square().sum()
    missed = (codes_BA @ W_dec_AD - target_BD).square().sum()
    return torch.nan_to_num(missed / spread, nan=0.0, posinf=0.0)
