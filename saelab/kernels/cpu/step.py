"""A whole training step on CPUs: mean squared error, Adam, unit decoder rows, in two passes instead
of a dozen.

Shapes: B tokens, F features, D width in, E width out, N pairs, A features with further gradients.
"""

import numpy as np
import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code
from saelab.kernels.cpu import backend, fused, sparse
from saelab.kernels.cpu.jit import threads
from saelab.kernels.cpu.probe import screen_dtype
from saelab.kernels.cpu.screen.screen import Problem, Rounded, buffer, raw, shadow_of
from saelab.kernels.stepping import Adam, Extra, Forward, Weights
from saelab.kernels.stepping import rates as rates_of
from saelab.sparsify import BuiltIn, Threshold


class Step:
    """Training steps of one set of weights. It keeps a low-precision copy of W_enc, renewed by its
    own updates.

    Give it the weights alone to change: a copy is made again only where torch has changed W_enc or
    b_enc in place.
    """

    def __init__(self, weights: Weights, first: Weights, second: Weights) -> None:
        for name, tensor in weights._asdict().items():
            backend.need_float32(**{name: tensor})
            if not tensor.is_contiguous():
                raise ValueError(f"{name} is not contiguous")
        self.weights, self.first, self.second = (
            Weights(*(t.detach() for t in group)) for group in (weights, first, second)
        )
        self._shadow: Rounded | None = None
        self._seen: tuple = ()

    def _renewed(self, n_tokens: int) -> Rounded | None:
        if screen_dtype() != torch.bfloat16:
            return None
        now = (self.weights.W_enc._version, self.weights.b_enc._version, n_tokens)
        if self._shadow is None or now != self._seen:
            self._shadow, self._seen = (
                shadow_of(self.weights.W_enc, self.weights.b_enc, n_tokens),
                now,
            )
        return self._shadow

    @torch.no_grad()
    def choose(
        self,
        x: Tensor,
        sparsify: BuiltIn,
        *,
        centred: bool = True,
        grad: Tensor | None = None,
        budget: Tensor | None = None,
    ) -> tuple[Tensor, Code]:
        """What is chosen from, x [B, D] without b_dec if `centred`, and its code; the first part of
        `forward`, for those who decode by themselves."""
        W_enc, b_enc, W_dec, b_dec = self.weights
        kernels.check(x, W_enc, b_enc, sparsify, grad, W_dec, budget)
        x = x.detach().contiguous()
        beta = 0.0 if isinstance(sparsify, Threshold) else float(sparsify.beta)
        boost = (grad.detach().contiguous(), W_dec) if beta and grad is not None else (None, None)
        with threads(), backend.float32_products():
            x_BD = (
                torch.sub(x, b_dec, out=buffer("centred", tuple(x.shape), x.dtype))
                if centred
                else x
            )
            shadow = self._renewed(len(x))
            problem = Problem(x_BD, W_enc, b_enc, sparsify.signed, beta, *boost, shadow=shadow)
            return x_BD, backend.choose_for(problem, sparsify, budget, None)

    @torch.no_grad()
    def forward(
        self,
        x: Tensor,
        target: Tensor,
        sparsify: BuiltIn,
        scale: float,
        *,
        centred: bool = True,
        grad: Tensor | None = None,
        budget: Tensor | None = None,
    ) -> Forward:
        """Code, reconstruction and latent gradients of the loss scale / 2 x sum |x_hat - target|^2
        for x [B, D], target [B, E].

        centred: whether b_dec is subtracted from x. Raises FloatingPointError, before any state
        changes, where anything is not finite.
        """
        _, _, W_dec, b_dec = self.weights
        target = target.detach().contiguous()
        x_BD, code = self.choose(x, sparsify, centred=centred, grad=grad, budget=budget)
        with threads():
            G_BE = buffer("G", tuple(target.shape), target.dtype)
            dvalues_N, errors_B = torch.empty_like(code.values), np.empty(len(x))
            pairs = (code.starts.numpy(), code.features.numpy(), code.values.numpy())
            decoder = (W_dec.numpy(), b_dec.numpy(), target.numpy())
            fused.decode_and_grad(
                *pairs, *decoder, np.float32(scale), G_BE.numpy(), dvalues_N.numpy(), errors_B
            )
        error = float(errors_B.sum())
        if not np.isfinite(error):
            raise FloatingPointError(f"the sum of squared errors is {error}")
        return Forward(code, error, G_BE, dvalues_N, x_BD, centred)

    @torch.no_grad()
    def update(self, forward: Forward, adam: Adam, extra: Extra | None = None) -> None:
        """One Adam step of all weights, decoder gradients without their part along the rows, which
        get unit norm again. A b_dec without numbers is somebody else's."""
        code, b_dec = forward.code, self.weights.b_dec
        rates, of_encoder = (
            tuple(np.float32(number) for number in rates_of(adam, share))
            for share in (1.0, adam.encoder)
        )
        groups = [
            tuple(t.numpy() for t in group[:3]) for group in (self.weights, self.first, self.second)
        ]
        with threads():
            order_N, starts = (t.numpy() for t in backend.by_feature(code))
            tokens_N = sparse.tokens_of(code.starts.numpy())
            values = (
                code.values.numpy(),
                forward.dvalues.numpy(),
                forward.x.numpy(),
                forward.G.numpy(),
            )
            parts = np.empty((sparse.CLASSES, self.weights.W_enc.shape[1]), np.float32)
            shadow = _shadow_arrays(self._shadow)
            more = _extra_arrays(extra, self.weights)
            pairs = (order_N, starts, tokens_N, *values)
            last_F = np.empty(0, np.int64) if adam.last is None else adam.last.numpy()
            how = (rates, of_encoder, adam.frozen, adam.number, last_F)
            fused.update(*pairs, *groups, more, *how, shadow, parts)
            if not len(b_dec):
                return
            db_dec_E = forward.G.sum(0).numpy()
            if forward.centred:
                db_dec_E -= parts.sum(0)
            fused.adam_row(
                b_dec.numpy(), self.first.b_dec.numpy(), self.second.b_dec.numpy(), db_dec_E, rates
            )


def _shadow_arrays(shadow: Rounded | None) -> tuple:
    if shadow is None:
        return np.empty((0, 0), np.int16), np.empty((3, 0), np.float32), np.empty(0), 1, 1
    return (
        raw(shadow.rows),
        shadow.slack,
        shadow.norms,
        shadow.width,
        len(shadow.rows) // shadow.width,
    )


def _extra_arrays(extra: Extra | None, weights: Weights) -> tuple[np.ndarray, ...]:
    places_F = torch.full((len(weights.b_enc),), -1)
    if extra is None:
        return places_F.numpy(), *(t[:0].numpy() for t in weights[:3])
    places_F[extra.features] = torch.arange(len(extra.features))
    return places_F.numpy(), *(t.contiguous().numpy() for t in extra[1:])
