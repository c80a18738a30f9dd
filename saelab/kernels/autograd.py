"""Gradients of encoding and decoding, written once above the backends (formulas: Gao et al. 2024,
appendix D.2).

Choosing carries no gradient; values do. Shapes: B tokens, F features, D width, N pairs.
"""

import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code


class _Values(torch.autograd.Function):
    """Passes the exact values that `choose` computed through, as a function of x, b_dec, W_enc and
    b_enc."""

    @staticmethod
    def forward(
        ctx, code: Code, x_BD: Tensor, b_dec_D: Tensor | None, W_enc_FD: Tensor, b_enc_F: Tensor
    ) -> Tensor:
        ctx.code = code
        ctx.save_for_backward(x_BD, b_dec_D, W_enc_FD)
        return code.values.clone()

    @staticmethod
    def backward(ctx, *grads: Tensor):
        x_BD, b_dec_D, W_enc_FD = ctx.saved_tensors
        dcode = ctx.code.with_values(
            torch.where(ctx.code.values != 0, grads[0], 0).to(W_enc_FD.dtype)
        )
        centred_BD = x_BD if b_dec_D is None else x_BD - b_dec_D
        db_enc_F = kernels.column_sums(dcode)[0]
        dx_BD = kernels.spmm(dcode, W_enc_FD) if ctx.needs_input_grad[1] else None
        db_dec_D = (
            -(db_enc_F @ W_enc_FD) if b_dec_D is not None and ctx.needs_input_grad[2] else None
        )
        dW_enc_FD = kernels.spmm_t(dcode, centred_BD) if ctx.needs_input_grad[3] else None
        return None, dx_BD, db_dec_D, dW_enc_FD, db_enc_F


class _Decoded(torch.autograd.Function):
    """spmm as a function of the values and W_dec."""

    @staticmethod
    def forward(ctx, code: Code, values_N: Tensor, W_dec_FD: Tensor) -> Tensor:
        ctx.code = code.with_values(values_N)
        ctx.save_for_backward(W_dec_FD)
        return kernels.spmm(ctx.code, W_dec_FD)

    @staticmethod
    def backward(ctx, *grads: Tensor):
        (W_dec_FD,) = ctx.saved_tensors
        G_BD = grads[0].contiguous()
        dvalues_N = kernels.sddmm(G_BD, W_dec_FD, ctx.code) if ctx.needs_input_grad[1] else None
        dW_dec_FD = kernels.spmm_t(ctx.code, G_BD) if ctx.needs_input_grad[2] else None
        return None, dvalues_N, dW_dec_FD


def encode(code: Code, x: Tensor, b_dec: Tensor | None, W_enc: Tensor, b_enc: Tensor) -> Code:
    """The chosen code with values differentiable in x [B, D], b_dec [D] (None: not subtracted),
    W_enc [F, D], b_enc [F]."""
    return code.with_values(_Values.apply(code, x, b_dec, W_enc, b_enc))  # type: ignore[arg-type]


def decode(code: Code, W_dec: Tensor) -> Tensor:
    """sum of value x W_dec[feature] per token, [B, D], differentiable in the values and W_dec [F,
    D]."""
    return _Decoded.apply(code, code.values, W_dec)  # type: ignore[return-value]
