"""How a step changes the weights: Adam with unit decoder rows, through autograd anywhere, in two
fused passes on a CPU or a GPU.

Shapes: B tokens, F features, A of them with further gradients, D width in, E width out.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from saelab import jump, kernels
from saelab.code import Code
from saelab.coder import Coder
from saelab.cross_layer import CrossLayerTranscoder
from saelab.kernels import autograd, stepping
from saelab.sae import SAE, unit_gradient
from saelab.sparsify import Threshold

from . import adam, encoder, fused, gradients, losses
from .adam import Moments
from .config import Config
from .layout import ALONE, Layout
from .step import Number

PENALTIES = {
    "l0": "l0_target",
    "tanh": "tanh",
    "l1": "l1",
}  # their names in metrics.jsonl, where l0 is the L0 itself


class Extra(NamedTuple):
    """A further loss over some features [A], ascending, and its gradients dW_enc [A, D], db_enc
    [A], dW_dec [A, E]."""

    loss: Number
    features: Tensor
    W_enc: Tensor
    b_enc: Tensor
    W_dec: Tensor


class Batch(NamedTuple):
    """Scaled inputs [B, D] and targets [B, E]; raw gradients [B, D] for boosted scores; pairs per
    feature [F] of this batch."""

    x: Tensor
    target: Tensor
    grad: Tensor | None = None
    budget: Tensor | None = None


class Forward(NamedTuple):
    """fired: on how many tokens each feature fired, [F]. loss: what `update` descends. terms: its
    parts by name, unweighted. error: gives target - x_hat."""

    fired: Tensor
    loss: Number
    terms: dict[str, Number]
    error: Callable[[], Tensor]


class Updates(Protocol):
    """`forward` measures a batch, `update` steps on what it measured, with each layer's further
    loss; `moments` are Adam's, by
    parameter, and `more` whatever else it remembers, to be saved."""

    def forward(self, batch: Batch, variance: float) -> Forward: ...

    def update(self, rate: float, number: int, extras: Sequence[Extra | None]) -> None: ...

    def moments(self) -> Moments: ...

    def more(self) -> dict[str, Tensor]: ...


class Autograd:
    """torch's autograd and an Adam, with materialised gradients: any backend, device, dtype, loss
    and sparsifier."""

    def __init__(self, config: Config, sae: Coder, layout: Layout = ALONE) -> None:
        self.config, self.sae, self.layout = config, sae, layout
        self.nest = losses.nest(config.loss, config.k, config.features, config.prefixes)
        self.adam = adam.for_run(config, sae)

    def forward(self, batch: Batch, variance: float) -> Forward:
        """Code, losses and error; the loss is kept for `update`."""
        sae, nest, layout = self.sae, self.nest, self.layout
        x_BD, target_BE = (tensor.to(sae.b_dec) for tensor in batch[:2])
        if isinstance(sae, CrossLayerTranscoder):
            x_hat_BE, code = sae.reconstruct(x_BD)
            self.loss = losses.reconstruction(x_hat_BE, target_BE, variance)
            fired_F, loss = kernels.column_sums(code)[1], unread(self.loss)
            return Forward(fired_F, loss, {"fvu": loss}, lambda: target_BE - x_hat_BE.detach())
        code = sae.encode(x_BD, batch.grad, batch.budget, layout.choose)
        base_BE = sae.base(x_BD)
        if nest is None:
            sum_BE = autograd.decode(code, sae.W_dec) + layout.once(base_BE)
            x_hat_BE = layout.over_features(sum_BE)
            main = fvu = layout.over_tokens(losses.reconstruction(x_hat_BE, target_BE, variance))
        else:
            options = (base_BE, target_BE, variance, layout)
            main, x_hat_BE = losses.nested(code, nest, sae.W_dec, *options)
            missed = losses.reconstruction(x_hat_BE.detach(), target_BE, variance)
            fvu = layout.over_tokens(missed)
        penalty, weight = self.config.penalty_of
        extra = self._penalty(penalty, code)
        self.loss = main + weight * extra
        terms = {"fvu": fvu}
        terms |= {} if nest is None else {self.config.loss: main}
        terms |= {} if penalty == "none" else {PENALTIES[penalty]: extra}
        read: dict[str, Number] = {name: unread(term) for name, term in terms.items()}
        own = code if nest is None or nest.main == -1 else nest.own(code)
        loss = unread(self.loss)
        return Forward(
            kernels.column_sums(own)[1], loss, read, lambda: target_BE - x_hat_BE.detach()
        )

    def _penalty(self, name: str, code: Code) -> Tensor:
        sae, k = self.sae, self.config.k
        if name == "l0" and isinstance(sae.sparsify, Threshold) and sae.levels is not None:
            return losses.l0_target(
                self._of_all(jump.l0(code, sae.levels, sae.sparsify.bandwidth)), k
            )
        table = {"l1": losses.l1, "tanh": losses.tanh}
        return self._of_all(table[name](code, k)) if name in table else code.values.new_zeros(())

    def _of_all(self, mean: Tensor) -> Tensor:
        """Of all pairs, what `mean` is per token of those of this rank."""
        return self.layout.over_tokens(self.layout.over_features(mean))

    def update(self, rate: float, number: int, extras: Sequence[Extra | None]) -> None:
        """Backward, drop the decoder gradient's part along the rows (all of it, if they are
        frozen), clip, one Adam step, unit norm, no level below 0."""
        self.loss.backward()
        sae, frozen = self.sae, self.config.freeze == "decoder"
        with torch.no_grad():
            for layer, extra in zip(sae.layers, extras, strict=True):
                _add(layer, extra)
            gradients.share(sae, self.layout)
            for layer in sae.layers:
                gradient_FE: Any = layer.W_dec.grad
                if frozen:
                    gradient_FE.zero_()
                gradient_FE -= (gradient_FE * layer.W_dec).sum(1, keepdim=True) * layer.W_dec
            if self.config.clip is not None:
                norm = gradients.norm(sae, self.layout)
                torch.nn.utils.clip_grads_with_norm_(sae.parameters(), self.config.clip, norm)
            moved = self.adam.step(rate, number)
            sae.zero_grad()
            if not frozen:
                _to_unit(sae, moved)
            if sae.levels is not None and sae.learns_levels:
                sae.levels.clamp_min_(0)

    def moments(self) -> Moments:
        """Adam's moments by parameter name."""
        return self.adam.moments()

    def more(self) -> dict[str, Tensor]:
        """What Adam remembers beside them."""
        return self.adam.more()


def _add(layer: Any, extra: Extra | None) -> None:
    """Add a further loss's gradients to those of a layer."""
    if extra is None:
        return
    for name in ("W_enc", "b_enc", "W_dec"):
        gradient = getattr(layer, name).grad
        gradient.index_add_(0, extra.features, getattr(extra, name).to(gradient.dtype))


def _to_unit(sae: Coder, moved: Sequence[Tensor] | None) -> None:
    """Unit norm for these rows of each layer's W_dec, or for all; a row that waits keeps its
    bits."""
    if moved is None:
        return sae.normalise_decoder()
    for layer, rows_R in zip(sae.layers, moved, strict=True):
        moved_RE = layer.W_dec[rows_R]
        layer.W_dec[rows_R] = moved_RE / moved_RE.norm(dim=1, keepdim=True).clamp_min(1e-20)


class Fused:
    """A backend's two passes: no gradient is materialised. For the plain loss of a budget, in
    float32."""

    def __init__(self, config: Config, sae: SAE, backend: str) -> None:
        self.config, self.sae = config, sae
        self.encoder = encoder.length(config, sae.d_model)
        weights = [
            # Detached, not `data`: they share the count of changes by which a step sees new rows.
            stepping.Weights(*(f(p.detach()) for p in (sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec)))
            for f in (_same, _zeros, _zeros)
        ]
        self.first, self.second = weights[1], weights[2]
        self.fused = fused.step_of(backend)(*weights)
        self.last_F = adam.waiting(config, sae)

    def forward(self, batch: Batch, variance: float) -> Forward:
        """Code, loss and error; the gradients are kept for `update`."""
        scale = 2 / (len(batch.x) * variance)
        grad = None if batch.grad is None else unit_gradient(batch.grad)
        options = {"centred": not self.sae.transcoder, "grad": grad, "budget": batch.budget}
        self.done = self.fused.forward(batch.x, batch.target, self.sae.sparsify, scale, **options)
        fvu = self.done.error * scale / 2
        fired_F = kernels.column_sums(self.done.code)[1]
        return Forward(fired_F, fvu, {"fvu": fvu}, lambda: self.done.G / -scale)

    def update(self, rate: float, number: int, extras: Sequence[Extra | None]) -> None:
        """One Adam step of all weights."""
        (extra,) = extras
        more = None if extra is None else stepping.Extra(*extra[1:])
        how = {"encoder": self.encoder, "last": self.last_F}
        self.fused.update(self.done, adam.numbers(self.config, rate, number, **how), more)

    def moments(self) -> Moments:
        """Adam's moments by parameter name."""
        return {
            name: (getattr(self.first, name), getattr(self.second, name))
            for name in self.first._fields
        }

    def more(self) -> dict[str, Tensor]:
        """The step at which each feature last moved, where features wait."""
        return {} if self.last_F is None else {"last": self.last_F}


def unread(number: Tensor) -> Tensor:
    """A number that stays on the card, as precise as Python's: sums of such are Python's, bit for
    bit."""
    return number.detach().double()


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _zeros(tensor: Tensor) -> Tensor:
    return torch.zeros_like(tensor)
