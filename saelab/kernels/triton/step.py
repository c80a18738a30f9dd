"""A whole training step on CUDA GPUs: mean squared error, Adam, unit decoder rows; no gradient is
materialised, and a step waits for the card a handful of times.

Shapes: B tokens, F features, D width in, E width out, N pairs, A features with further gradients.
"""

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code
from saelab.kernels.stepping import Adam, Extra, Forward, Weights, rates
from saelab.kernels.triton import passes, sizes
from saelab.kernels.triton.backend import choose_for
from saelab.kernels.triton.launch import on_card_of
from saelab.kernels.triton.screen import Problem, Rounded, rounded
from saelab.kernels.triton.segments import Pieces, piece_sums, pieces
from saelab.sparsify import BuiltIn, Threshold

_passes: Any = passes  # compiled when launched, with plain numbers for compile-time constants


class Step:
    """Training steps of one set of weights. It keeps a half-precision copy of W_enc, renewed by its
    own updates.

    Give it the weights alone to change: a copy is made again only where torch has changed W_enc or
    b_enc in place. All tensors are contiguous float32 on one device.
    """

    def __init__(self, weights: Weights, first: Weights, second: Weights) -> None:
        for name, tensor in weights._asdict().items():
            if tensor.dtype != torch.float32 or not tensor.is_contiguous():
                raise ValueError(f"{name} must be contiguous float32, and is {tensor.dtype}")
        for name, moment in (*first._asdict().items(), *second._asdict().items()):
            if moment.dtype != torch.float32:
                raise ValueError(f"a moment of {name} must be float32, and is {moment.dtype}")
        self.weights, self.first, self.second = (
            Weights(*(t.detach() for t in group)) for group in (weights, first, second)
        )
        self._shadow: Rounded | None = None
        self._seen: tuple = ()

    def _renewed(self) -> Rounded:
        now = (self.weights.W_enc._version, self.weights.b_enc._version)
        if self._shadow is None or now != self._seen:
            self._shadow, self._seen = rounded(self.weights.W_enc, self.weights.b_enc), now
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
        kernels.check_shapes(x, W_enc, b_enc, sparsify, grad, W_dec, budget)
        x = x.detach().contiguous()
        beta = 0.0 if isinstance(sparsify, Threshold) else float(sparsify.beta)
        left, right = (x, W_enc) if not beta or grad is None else (grad.contiguous(), W_dec)
        with on_card_of(W_enc):
            x_BD = x - b_dec if centred else x
            left = x_BD if left is x else left
            shadow = self._renewed()
            self._check(x_BD, shadow)
            problem = Problem(x_BD, W_enc, b_enc, sparsify.signed, beta, left, right, shadow)
            return x_BD, choose_for(problem, sparsify, budget, None)

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
        target = target.detach().contiguous()
        x_BD, code = self.choose(x, sparsify, centred=centred, grad=grad, budget=budget)
        with on_card_of(self.weights.W_enc):
            G_BE, dvalues_N, errors_B = self._decoded(code, target, scale)
            error = errors_B.sum()
            forward = Forward(code, error, G_BE, dvalues_N, x_BD, centred)
            grouped = _grouped(forward)  # the card has this to do while the host waits for it
        if not bool(torch.isfinite(error)):
            raise FloatingPointError(f"the sum of squared errors is {float(error)}")
        return forward._replace(grouped=grouped)

    def _check(self, x_BD: Tensor, shadow: Rounded) -> None:
        """Raise FloatingPointError for what is not finite; the copy's norms tell of W_enc and
        b_enc."""
        if not bool(torch.isfinite(x_BD.sum() + shadow.slack.sum())):
            kernels.check_finite("x", x_BD)
            kernels.check_finite("b_enc", self.weights.b_enc)
            kernels.check_finite("W_enc", self.weights.W_enc)

    def _decoded(self, code: Any, target: Tensor, scale: float) -> tuple[Tensor, Tensor, Tensor]:
        s, width = sizes.here(), target.shape[1]
        G_BE, dvalues_N = torch.empty_like(target), torch.empty_like(code.values)
        errors_B = torch.empty(len(target), dtype=torch.float64, device=target.device)
        options = s.launch(sizes.row_warps(width, s), sizes.ROW_REGISTERS)
        _passes.decode_and_grad[(len(target),)](
            code.starts, code.features, code.values, self.weights.W_dec, self.weights.b_dec,
            target, G_BE, dvalues_N, errors_B, float(scale), width, sizes.power(width), **options,
        )  # fmt: skip
        return G_BE, dvalues_N, errors_B

    @torch.no_grad()
    def update(self, forward: Forward, adam: Adam, extra: Extra | None = None) -> None:
        """One Adam step of all weights, decoder gradients without their part along the rows, which
        get unit norm again. A b_dec without numbers is somebody else's."""
        with on_card_of(self.weights.W_enc):
            grouped = forward.grouped or _grouped(forward)
            db_dec_E = forward.G.sum(0)
            if forward.centred and len(self.weights.b_dec):
                db_dec_E -= grouped.db @ self.weights.W_enc
            self._update_rows(forward, grouped, adam, extra)
            if len(self.weights.b_dec):
                _adam_row(self.weights.b_dec, self.first.b_dec, self.second.b_dec, db_dec_E, adam)

    def _update_rows(
        self, forward: Forward, grouped: "_Grouped", adam: Adam, extra: Extra | None
    ) -> None:
        """Update all but b_dec."""
        s, shadow, (starts, long, tokens_N, *_) = sizes.here(), self._renewed(), grouped
        (W_enc, b_enc, W_dec, _), first, second = self.weights, self.first, self.second
        (n_features, width), out_width = W_enc.shape, W_dec.shape[1]
        places_F, dW_enc, db_enc, dW_dec = _places(extra, self.weights)
        last_F = starts if adam.last is None else adam.last
        logs = [math.log2(beta) if beta else -math.inf for beta in (adam.beta1, adam.beta2)]
        numbers = (*rates(adam), float(adam.number), *logs)
        pairs, kind = (starts, long.starts, tokens_N), (extra is not None, adam.last is not None)
        if not adam.frozen:
            options = s.launch(sizes.update_warps(out_width, s), sizes.UPDATE_REGISTERS)
            _passes.update_decoder[(n_features,)](
                *pairs, grouped.values, forward.G, grouped.G_pieces, grouped.along, grouped.fired,
                W_dec, first.W_dec, second.W_dec, places_F, db_enc, dW_dec, last_F, out_width,
                *numbers, *kind, sizes.power(out_width), s.together, **options,
            )  # fmt: skip
        options = s.launch(sizes.update_warps(width, s), sizes.UPDATE_REGISTERS)
        _passes.update_encoder[(n_features,)](
            *pairs, grouped.dvalues, forward.x, grouped.x_pieces, grouped.db, grouped.fired,
            W_enc, b_enc, *first[:2], *second[:2], places_F, db_enc, dW_enc, last_F, *shadow,
            width, shadow.rows.shape[1], rates(adam, adam.encoder)[4],
            *numbers, *kind, sizes.power(width), s.together, **options,
        )  # fmt: skip


class _Grouped(NamedTuple):
    """The pairs by feature, and sums over them."""

    starts: Tensor
    """[F+1] int64"""
    long: Pieces
    """the features that have many"""
    tokens: Tensor
    """[N] int64"""
    values: Tensor
    """[N]"""
    dvalues: Tensor
    """[N]: latent gradients"""
    x_pieces: Tensor
    """[P, D]: of the pieces, the sum of latent gradient x x[token]"""
    G_pieces: Tensor
    """[P, E]: the sum of value x G[token]"""
    db: Tensor
    """[F]: sum of latent gradients"""
    along: Tensor
    """[F]: sum of value x latent gradient"""
    fired: Tensor
    """[F] int32: values that are not 0"""


def _grouped(forward: Forward) -> _Grouped:
    code = forward.code
    order_N, starts = code.by_feature()
    tokens_N, values_N, dvalues_N = (
        t[order_N] for t in (code.tokens, code.values, forward.dvalues)
    )
    long = pieces(starts, len(order_N))
    x_pieces = piece_sums(long, tokens_N, dvalues_N, forward.x)
    G_pieces = piece_sums(long, tokens_N, values_N, forward.G)
    db_F, along_F = (values_N.new_empty(code.n_features) for _ in range(2))
    fired_F = torch.empty_like(db_F, dtype=torch.int32)
    _passes.pair_sums[(code.n_features,)](
        starts, values_N, dvalues_N, db_F, along_F, fired_F, 128, **sizes.here().launch(1)
    )
    sums = x_pieces, G_pieces, db_F, along_F, fired_F
    return _Grouped(starts, long, tokens_N, values_N, dvalues_N, *sums)


def _places(extra: Extra | None, weights: Weights) -> tuple[Tensor, ...]:
    """[F] int32: each feature's row of the further gradients, or -1; those gradients."""
    if extra is None:
        return weights.b_enc, *weights[:3]  # none of which is read
    n = len(extra.features)
    places_F = torch.full_like(weights.b_enc, -1, dtype=torch.int32)
    places_F[extra.features] = torch.arange(n, dtype=torch.int32, device=places_F.device)
    return places_F, *(t.contiguous() for t in extra[1:])


def _adam_row(weight: Tensor, first: Tensor, second: Tensor, gradient: Tensor, adam: Adam) -> None:
    """One Adam step of b_dec."""
    beta1, rest1, beta2, rest2, size, inverse, epsilon = rates(adam)
    first.mul_(beta1).add_(gradient, alpha=rest1)
    second.mul_(beta2).addcmul_(gradient, gradient, value=rest2)
    weight.sub_(size * first / (second.sqrt() * inverse + epsilon))
