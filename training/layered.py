"""How a step changes a cross-layer transcoder by a backend's passes: each layer encodes, their
outputs share one residual, each layer updates.

Shapes: B tokens, L layers, F features per layer, D width in, E width out.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from saelab import kernels
from saelab.code import Code
from saelab.cross_layer import CrossLayerTranscoder
from saelab.kernels import stepping
from saelab.layer_codes import picked
from saelab.sparsify import BuiltIn

from . import adam, fused
from .adam import Moments
from .config import Config
from .updates import Batch, Extra, Forward


class Layered:
    """A backend's step for each layer, of which no gradient is materialised; the first one, which
    writes to all outputs, holds b_dec. For a budget, in float32."""

    def __init__(self, config: Config, clt: CrossLayerTranscoder, backend: str) -> None:
        self.config, self.clt = config, clt
        biases = _first(clt.b_dec.detach(), clt.n_layers)
        weights = [
            stepping.Weights(
                layer.W_enc.detach(), layer.b_enc.detach(), layer.W_dec.detach(), b_dec
            )
            for layer, b_dec in zip(clt.layers, biases, strict=True)
        ]
        self.firsts = [_zeros(each) for each in weights]
        self.seconds = [_zeros(each) for each in weights]
        moments = zip(weights, self.firsts, self.seconds, strict=True)
        self.steps = [fused.step_of(backend)(*each) for each in moments]
        self.last_F = adam.waiting(config, clt)

    def _choose(self, x_BD: Tensor, i: int, form: BuiltIn) -> Code:
        return self.steps[i].choose(x_BD, form, centred=False)[1]

    @torch.no_grad()
    def forward(self, batch: Batch, variance: float) -> Forward:
        """Code, loss and error; the residual is kept for `update`."""
        clt, scale = self.clt, 2 / (len(batch.x) * variance)
        self.xs = clt.inputs(batch.x)
        self.codes = picked(self.xs, clt.sparsify, self._choose, len(clt.layers[0].b_enc))
        G_BE = clt.written(self.codes).sub_(batch.target)
        fvu = G_BE.square().sum(dtype=torch.float64) * (scale / 2)
        self.G_BE = G_BE.mul_(scale)
        fired_F = torch.cat([kernels.column_sums(code)[1] for code in self.codes])
        return Forward(fired_F, fvu, {"fvu": fvu}, lambda: self.G_BE / -scale)

    @torch.no_grad()
    def update(self, rate: float, number: int, extras: Sequence[Extra | None]) -> None:
        """One Adam step of all weights, layer by layer: a layer's gradients are those of the
        outputs that it writes to."""
        pieces = zip(self.steps, self.codes, self.xs, extras, self._lasts(), strict=True)
        for step, code, x_BD, extra, last_F in pieces:
            W_dec_FE = step.weights.W_dec
            G_BE = self.G_BE[:, -W_dec_FE.shape[1] :].contiguous()
            dvalues_N = kernels.sddmm(G_BE, W_dec_FE, code)
            dvalues_N = torch.where(code.values != 0, dvalues_N, 0)
            forward = stepping.Forward(code, 0.0, G_BE, dvalues_N, x_BD, centred=False)
            more = None if extra is None else stepping.Extra(*extra[1:])
            step.update(forward, adam.numbers(self.config, rate, number, last=last_F), more)

    def moments(self) -> Moments:
        """Adam's moments by parameter name."""
        named: Moments = {"b_dec": (self.firsts[0].b_dec, self.seconds[0].b_dec)}
        for i, pair in enumerate(zip(self.firsts, self.seconds, strict=True)):
            for name in ("W_enc", "b_enc", "W_dec"):
                named[f"layers.{i}.{name}"] = tuple(getattr(each, name) for each in pair)
        return named

    def more(self) -> dict[str, Tensor]:
        """The step at which each feature last moved, where features wait."""
        return {} if self.last_F is None else {"last": self.last_F}

    def _lasts(self) -> Sequence[Tensor | None]:
        """That of each layer."""
        n_layers = self.clt.n_layers
        return [None] * n_layers if self.last_F is None else self.last_F.chunk(n_layers)


def _first(b_dec: Tensor, n_layers: int) -> list[Tensor]:
    """b_dec for the first layer, nothing for the others."""
    return [b_dec, *(b_dec[:0] for _ in range(1, n_layers))]


def _zeros(weights: stepping.Weights) -> stepping.Weights:
    return stepping.Weights(*map(torch.zeros_like, weights))
