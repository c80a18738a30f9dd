"""The Triton training step equals autograd and torch's Adam, to float32 rounding; weakened twins
are caught. Shapes are tiny."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tests.kernels import backends, inputs
from tests.kernels.waiting import Waiting

pytest.importorskip("triton")

from saelab import kernels
from saelab.kernels import autograd
from saelab.kernels.stepping import Adam, Extra, Weights
from saelab.kernels.triton import screen, segments
from saelab.kernels.triton.step import Step
from saelab.sparsify import Choice

B, F, D, SCALE, RATE = 12, 40, 6, 2 / 12, 1e-2
ENCODER = 0.6  # the share of the rate that W_enc moves at


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Several tiles; segments that have pieces."""
    monkeypatch.setattr(screen, "_ENTRIES", 200)
    monkeypatch.setattr(segments, "_LONGEST", 4)


def start(E: int) -> Weights:
    case = inputs.make("structured", B, F, D)
    W_dec = torch.nn.functional.normalize(
        torch.randn(F, E, generator=torch.Generator().manual_seed(0)), dim=1
    )
    b = case.b.clone()
    b[3] = 3.0  # fires on every token
    return Weights(case.W / case.W.norm(dim=1, keepdim=True), b, W_dec, torch.full((E,), 0.05))


def batches() -> list[Tensor]:
    return list(inputs.make("structured", 2 * B, F, D).x.split(B))


class Waits(TorchDispatchMode):
    """Counts what would wait for a card: numbers read from it, results whose size it decides."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        sized = func is aten.repeat_interleave.Tensor and kwargs.get("output_size") is None
        masks = args[1] if func in (aten.index.Tensor, aten.index_put_.default) else ()
        masked = any(t is not None and t.dtype == torch.bool for t in masks)
        self.n += sized or masked or func in WAITING
        return func(*args, **kwargs)


aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.nonzero.default,
    aten.masked_select.default,
    aten.bincount.default,
    aten._unique2.default,
}


def made(weights: Weights) -> Step:
    weights = Weights(*backends.there("triton", *weights))
    return Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))


def fused(
    sparsify, E: int = D, centred: bool = True, budget: Tensor | None = None, waits: bool = False
) -> Weights:
    step = made(start(E))
    last_F = torch.zeros_like(step.weights.b_enc, dtype=torch.int64) if waits else None
    for number, x in enumerate(batches(), 1):
        x, share = backends.there("triton", x, budget)
        options = {"grad": x.flip(0), "budget": share, "centred": centred}
        forward = step.forward(x, x[:, :E].contiguous(), sparsify, SCALE, **options)
        step.update(forward, Adam(RATE, number, encoder=ENCODER, last=last_F))
    return Weights(*(t.cpu() for t in step.weights))


def plain(
    sparsify,
    E: int,
    centred: bool,
    dtype: torch.dtype,
    budget: Tensor | None = None,
    waits: bool = False,
) -> Weights:
    weights = Weights(*(t.to(dtype).requires_grad_() for t in start(E)))
    W_enc, b_enc, W_dec, b_dec = weights
    rates = [{"params": [W_enc], "lr": ENCODER * RATE}, {"params": [*weights[1:]]}]
    adam = Waiting(weights, RATE, ENCODER) if waits else torch.optim.Adam(rates, lr=RATE)
    for x in (x.to(dtype) for x in batches()):
        with kernels.backend("reference"):
            shift = b_dec if centred else None
            left = (x - b_dec if centred else x).detach()
            boost = {"grad": x.flip(0), "W_dec": W_dec.detach()} if sparsify.beta else {}
            weights_ = (W_enc.detach(), b_enc.detach())
            code = kernels.choose(left, *weights_, sparsify, budget=budget, **boost)
            x_hat = autograd.decode(autograd.encode(code, x, shift, W_enc, b_enc), W_dec) + b_dec
            for weight in weights:
                weight.grad = None
            (SCALE / 2 * (x_hat - x[:, :E]).square().sum()).backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            adam.step()
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    return Weights(*(t.detach() for t in weights))


def furthest(ours: Weights, exact: Weights) -> float:
    """The largest difference of a weight, in steps of Adam."""
    pairs = zip(ours, exact, strict=True)
    return max(float((a - b).double().abs().max()) for a, b in pairs) / RATE


@pytest.mark.parametrize(
    ("sparsify", "E", "centred", "budget"),
    [
        (Choice(4), D, True, None),
        (Choice(4, signed=True), 4, False, None),
        (Choice(4, "batch"), D, True, None),
        (Choice(4, "feature", beta=0.7), D, True, torch.arange(F) % 3),
    ],
    ids=str,
)
def test_steps_equal_those_of_plain_torch_in_float64(sparsify, E, centred, budget):
    exact = plain(sparsify, E, centred, torch.float64, budget)
    assert furthest(fused(sparsify, E, centred, budget), exact) < 1e-3


def test_features_without_a_gradient_wait():
    exact = plain(Choice(1), D, True, torch.float64, waits=True)
    assert furthest(fused(Choice(1), waits=True), exact) < 1e-3
    assert furthest(fused(Choice(1)), exact) > 0.1


def test_pieces_that_are_lost_are_caught(monkeypatch):
    exact = plain(Choice(4), D, True, torch.float64)
    one = segments.piece_sums
    monkeypatch.setattr("saelab.kernels.triton.step.piece_sums", lambda *a: 0 * one(*a))
    assert furthest(fused(Choice(4)), exact) > 0.1


def test_a_step_has_the_same_bits_twice_and_its_copy_follows_every_update():
    assert all(map(torch.equal, fused(Choice(4)), fused(Choice(4))))
    step = made(start(D))
    (x,) = backends.there("triton", batches()[0])
    step.update(step.forward(x, x, Choice(4), SCALE), Adam(0.1, 1))
    fresh = screen.rounded(step.weights.W_enc, step.weights.b_enc)
    assert all(map(torch.equal, step._renewed(), fresh))
    stale = step._renewed().rows.clone()
    step.weights.W_enc.mul_(1.5)
    step.weights.W_enc.add_(0.01)
    assert not torch.equal(step._renewed().rows, stale)


def test_further_gradients_are_added_and_projected():
    (x,) = backends.there("triton", batches()[0])
    rows = torch.tensor([3, 17, 25], device=x.device)
    extra = [torch.randn(shape, device=x.device) for shape in ((3, D), (3,), (3, D))]
    step, bare = made(start(D)), made(start(D))
    unit = step.weights.W_dec[rows].clone()
    for one, more in ((step, Extra(rows, *extra)), (bare, None)):
        one.update(one.forward(x, x, Choice(4), SCALE), Adam(RATE, 1, beta1=0.0), more)
    added = [(a - b)[rows] for a, b in zip(step.first[:3], bare.first[:3], strict=True)]
    assert torch.equal(step.weights.b_dec, bare.weights.b_dec)  # which they do not reach
    extra[2] -= (extra[2] * unit).sum(1, keepdim=True) * unit
    for ours, right in zip(added, extra, strict=True):
        torch.testing.assert_close(ours, right, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("over", "most"), [("token", 3), ("batch", 7), ("feature", 4)])
def test_a_step_waits_for_the_card_a_handful_of_times(over, most):
    step = made(start(D))
    (x,) = backends.there("triton", batches()[0])
    with Waits() as waits:
        step.update(step.forward(x, x, Choice(4, over), SCALE), Adam(RATE, 1))
    assert waits.n <= most  # training reads two more numbers: whether a feature is rare, the loss
    with Waits() as waits:
        assert x[x > 0].sum() > 0 and x.sum().tolist() != 0.5
    assert waits.n >= 2


@pytest.mark.parametrize("where", ["x", "target", "W_enc", "W_dec"])
def test_a_number_that_is_not_finite_stops_the_step_before_anything_changes(where):
    step = made(start(D))
    (x,) = backends.there("triton", batches()[0].clone())
    named = {"x": x, "target": x.clone(), **step.weights._asdict()}
    named[where][:, 3] = float("nan")
    before = [t.clone() for t in (*step.weights, *step.first)]
    with pytest.raises(FloatingPointError, match=r"not finite|squared errors is nan"):
        step.forward(x, named["target"], Choice(4), SCALE)
    after = (*step.weights, *step.first)
    pairs = zip(before, after, strict=True)
    assert all(torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in pairs)
