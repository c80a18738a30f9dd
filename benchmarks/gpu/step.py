"""The training step by stage, beside what the product alone costs.

Shapes: B tokens, F features, D width.
"""

from functools import partial
from importlib import import_module
from types import ModuleType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu.card import Card, Rows, attempt, guarded
from saelab import kernels
from saelab.sparsify import Choice, Sparsify
from training.benchmark import Shape

SCALE = 1e-3  # of the loss: any number


class Trained(NamedTuple):
    """A fused step and what it takes: x [B, D], the sparsifier; the number of steps so far."""

    module: ModuleType
    fused: Any
    x: Tensor
    form: Sparsify
    number: list[int]

    def forward(self) -> Any:
        """Choosing, decoding, latent gradients."""
        return self.fused.forward(self.x, self.x, self.form, SCALE)

    def update(self, forward: Any) -> None:
        """One Adam step."""
        self.number[0] += 1
        self.fused.update(forward, self.module.Adam(1e-4, self.number[0]))

    def full(self) -> None:
        """Both."""
        self.update(self.forward())


def trained(card: Card, shape: Shape, form: Sparsify) -> Trained:
    """A fused step of random rows, without a copy of them beyond what it keeps."""
    module = import_module("saelab.kernels.triton.step")
    W_enc = card.rows(shape.features, shape.width, 0)
    sizes = (W_enc.shape, W_enc.shape[:1], W_enc.shape, W_enc.shape[1:])
    b_enc, b_dec = (torch.zeros(size, device=card.device) for size in sizes[1::2])
    weights = module.Weights(W_enc, b_enc, W_enc.clone(), b_dec)
    first, second = (
        module.Weights(*(torch.zeros(size, device=card.device) for size in sizes)) for _ in range(2)
    )
    x = card.tokens(shape, W_enc)
    return Trained(module, module.Step(weights, first, second), x, form, [0])


def step(card: Card) -> Rows:
    """Milliseconds of choose, decode and latent gradients, update and the full step;
    the product in half precision beside them."""
    for name, shape in card.shapes().items():
        yield from guarded(name, _stages(card, name, shape))
        for over in ("batch", "feature"):
            label = f"{name}, {over} budget, full step, ms"
            yield label, attempt(partial(_full, card, shape, Choice(shape.k, over)))


def _stages(card: Card, name: str, shape: Shape) -> Rows:
    mine = trained(card, shape, Choice(shape.k))
    product = _product(card, mine)
    yield f"{name} product fp16, ms", product
    for part, ms in _parts(card, mine):
        yield f"{name} {part}", ms
    yield f"{name} full step, products", round(ms / product, 2)  # the last part is all of it
    whole = 4 * shape.batch * shape.features
    peak = card.peak(mine.full)
    yield f"{name} peak of a step, share of [B, F] float32", peak and round(peak / whole, 3)
    yield f"{name} ms and launches by kernel", _profile(card, mine)


def _full(card: Card, shape: Shape, form: Sparsify) -> float:
    return card.milliseconds(trained(card, shape, form).full, repeats=5)


def _product(card: Card, mine: Trained) -> float:
    """Milliseconds of x W_enc^T in half precision into memory that is used again."""
    x_BD, W_FD = mine.x.half(), mine.fused.weights.W_enc.half()
    out_BF = x_BD.new_empty(len(x_BD), len(W_FD))
    return card.milliseconds(lambda: torch.mm(x_BD, W_FD.T, out=out_BF))


def _parts(card: Card, mine: Trained) -> Rows:
    """Milliseconds of the parts of a step and of all of it."""
    module, fused, weights = mine.module, mine.fused, mine.fused.weights
    rows = (mine.x, weights.W_enc, weights.b_enc)

    def choose() -> Any:
        problem = module.Problem(*rows, False, 0.0, *rows[:2], fused._renewed())
        return module.choose_for(problem, mine.form, None, None)

    def choose_anew() -> None:
        with kernels.backend("triton"):
            kernels.choose(*rows, mine.form)

    yield "choose, ms", card.milliseconds(choose)
    yield "choose where W_enc is rounded anew, ms", card.milliseconds(choose_anew)
    code = choose()
    decode = partial(fused._decoded, code, mine.x, SCALE)
    yield "decode and latent gradients, ms", card.milliseconds(decode)
    forward = mine.forward()
    yield "update, ms", card.milliseconds(lambda: mine.update(forward))
    yield "full step, ms", card.milliseconds(mine.full)


def _profile(card: Card, mine: Trained) -> dict[str, Any]:
    """Milliseconds and launches of one step by kernel, the most expensive first."""
    if not card.is_cuda:
        return {}
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as profiled:
        mine.full()
        card.wait()
    events = sorted(profiled.key_averages(), key=lambda event: -event.self_device_time_total)
    return {
        event.key[:80]: [round(event.self_device_time_total / 1000, 3), event.count]
        for event in events[:30]
        if event.self_device_time_total
    }
