"""The fused training step equals autograd and torch's Adam, to float32 rounding, and leaves nothing
changed on bad input."""

import pytest
import torch
from torch import Tensor

from saelab import kernels
from saelab.kernels import autograd
from saelab.kernels.cpu import probe
from saelab.kernels.cpu.screen import screen
from saelab.kernels.cpu.step import Adam, Extra, Step, Weights
from saelab.sparsify import Choice, Threshold
from tests.kernels import inputs
from tests.kernels.waiting import Waiting
from training import losses

B, F, D, SCALE, RATE = 64, 300, 40, 2 / 64, 1e-3
ENCODER = 0.6  # the share of the rate that W_enc moves at
Last = Tensor | None


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch):
    monkeypatch.setattr(screen, "_WIDEST", 64)


def start(E: int) -> Weights:
    case = inputs.make("structured", B, F, D)
    W_dec = torch.nn.functional.normalize(
        torch.randn(F, E, generator=torch.Generator().manual_seed(0)), dim=1
    )
    return Weights(case.W.clone(), case.b.clone(), W_dec, torch.full((E,), 0.05))


def batches(n: int = 5) -> list[Tensor]:
    return list(inputs.make("structured", n * B, F, D).x.split(B))


def fused(sparsify, E: int, centred: bool, dtype: torch.dtype, last: Last = None) -> Weights:
    weights = start(E)
    step = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
    with probe.screening(dtype):
        for number, x in enumerate(batches(), 1):
            step.update(
                step.forward(x, x[:, :E].contiguous(), sparsify, SCALE, centred=centred),
                Adam(RATE, number, encoder=ENCODER, last=last),
            )
    return weights


def plain(
    sparsify, E: int, centred: bool, dtype: torch.dtype, rate: float = RATE, waits: bool = False
) -> Weights:
    weights = Weights(*(t.to(dtype).requires_grad_() for t in start(E)))
    W_enc, b_enc, W_dec, b_dec = weights
    rates = [{"params": [W_enc], "lr": ENCODER * rate}, {"params": [*weights[1:]]}]
    adam = Waiting(weights, rate, ENCODER) if waits else torch.optim.Adam(rates, lr=rate)
    for x in (x.to(dtype) for x in batches()):
        with kernels.backend("reference"):
            shift = b_dec if centred else None
            code = kernels.choose(
                (x - b_dec if centred else x).detach(), W_enc.detach(), b_enc.detach(), sparsify
            )
            x_hat = autograd.decode(autograd.encode(code, x, shift, W_enc, b_enc), W_dec) + b_dec
            for weight in weights:
                weight.grad = None
            (SCALE / 2 * (x_hat - x[:, :E]).square().sum()).backward()
        with torch.no_grad():
            W_dec.grad -= (W_dec.grad * W_dec).sum(1, keepdim=True) * W_dec
            adam.step()
            W_dec /= W_dec.norm(dim=1, keepdim=True)
    return Weights(*(t.detach() for t in weights))


def worst_ratio(ours: Weights, torchs: Weights, exact: Weights) -> float:
    """The largest ratio of our rms error to plain torch's."""
    rms = [
        [float((a - b).double().square().mean().sqrt()) for a, b in zip(w, exact, strict=True)]
        for w in (ours, torchs)
    ]
    return max(mine / theirs for mine, theirs in zip(*rms, strict=True))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("sparsify", "E", "centred"),
    [
        (Choice(4), D, True),
        (Choice(4), 24, False),
        (Choice(4, signed=True), D, True),
        (Choice(4, "batch"), D, True),
        (Choice(5, "feature"), D, True),
        (Threshold(0.2), D, True),
    ],
)
def test_five_steps_equal_five_of_plain_torch(sparsify, E, centred, dtype):
    exact, torchs = (plain(sparsify, E, centred, t) for t in (torch.float64, torch.float32))
    assert worst_ratio(fused(sparsify, E, centred, dtype), torchs, exact) < 2
    slower = plain(sparsify, E, centred, torch.float32, rate=RATE * (1 - 1e-4))
    assert worst_ratio(slower, torchs, exact) > 2


def no_steps() -> Tensor:
    """The step in which each feature last moved, before the first."""
    return torch.zeros(F, dtype=torch.int64)


@pytest.mark.parametrize("sparsify", [Choice(1), Choice(1, "batch"), Choice(2, signed=True)])
def test_features_without_a_gradient_wait(sparsify):
    given, last_F = (sparsify, D, True), no_steps()
    exact, torchs = (plain(*given, t, waits=True) for t in (torch.float64, torch.float32))
    mine = fused(*given, torch.float32, last_F)
    assert worst_ratio(mine, torchs, exact) < 2
    assert (last_F == 0).any() and ((last_F > 0) & (last_F < 5)).any() and (last_F == 5).any()
    assert torch.equal(mine.W_enc[last_F == 0], start(D).W_enc[last_F == 0])
    moving_on = fused(*given, torch.float32)
    assert worst_ratio(moving_on, torchs, exact) > 100


def test_a_further_gradient_moves_a_feature_that_has_not_fired():
    x, last_F = batches()[0], no_steps()
    weights = start(D)
    step = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
    forward = step.forward(x, x, Choice(1), SCALE)
    rows = (torch.bincount(forward.code.features, minlength=F) == 0).nonzero()[:2, 0]
    gradients = (torch.zeros(2, D), torch.tensor([0.0, 0.1]), torch.zeros(2, D))
    step.update(forward, Adam(RATE, 1, last=last_F), Extra(rows, *gradients))
    assert last_F[rows].tolist() == [0, 1]
    assert weights.b_enc[rows[1]] != start(D).b_enc[rows[1]]


def test_further_gradients_of_some_features_are_added_and_projected():
    sparsify, x = Choice(4), batches()[0]
    rows = torch.tensor([3, 17, 250])
    weights = start(D)
    step = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
    forward = step.forward(x, x, sparsify, SCALE)
    params = [t.double().requires_grad_() for t in start(D)]
    code = kernels.choose(x - start(D).b_dec, *start(D)[:2], sparsify)
    code = code.with_values(code.values.double())
    x_hat = (
        autograd.decode(autograd.encode(code, x.double(), params[3], *params[:2]), params[2])
        + params[3]
    )
    error = x.double() - x_hat.detach()
    parts = [params[i][rows] for i in (0, 1, 2)]
    aux = losses.aux_k(x.double() - params[3].detach(), error, *parts, 2)
    extra = torch.autograd.grad(aux, parts, retain_graph=True)
    (SCALE / 2 * (x_hat - x.double()).square().sum() + aux).backward()
    gradient = params[2].grad - (params[2].grad * params[2]).sum(1, keepdim=True) * params[2]
    step.update(forward, Adam(RATE, 1, beta1=0.0), Extra(rows, *(t.float() for t in extra)))
    for ours, right in zip(step.first[:3], (params[0].grad, params[1].grad, gradient), strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-4, atol=1e-6)
    assert gradient[rows].abs().sum() > 0


def test_decoder_rows_keep_unit_norm():
    weights = fused(Choice(4), D, True, torch.float32)
    torch.testing.assert_close(weights.W_dec.norm(dim=1), torch.ones(F), rtol=0, atol=1e-6)


def test_the_low_precision_copy_follows_every_update_and_a_stale_one_is_caught():
    weights = start(D)
    step = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
    with probe.screening(torch.bfloat16):
        for number, x in enumerate(batches(), 1):
            step.update(step.forward(x, x, Choice(4), SCALE), Adam(0.05, number))
            fresh = screen.shadow_of(weights.W_enc, weights.b_enc, B)
            assert torch.equal(step._shadow.rows, fresh.rows)
            assert (step._shadow.slack == fresh.slack).all()
        stale = step._shadow.rows.clone()
        weights.W_enc.mul_(1.5)
        step.forward(x, x, Choice(4), SCALE)
        assert not torch.equal(step._shadow.rows, stale)


def test_two_runs_and_one_thread_or_two_give_the_same_bits():
    before = torch.get_num_threads()
    runs = []
    try:
        for n_threads in (1, 2, 2):
            torch.set_num_threads(n_threads)
            runs.append(fused(Choice(4), D, True, torch.bfloat16))
    finally:
        torch.set_num_threads(before)
    for other in runs[1:]:
        assert all(map(torch.equal, runs[0], other))


@pytest.mark.parametrize("where", ["x", "target", "W_enc", "W_dec"])
def test_a_number_that_is_not_finite_stops_the_step_before_anything_changes(where):
    weights, x = start(D), batches()[0].clone()
    target = x.clone()
    {"x": x, "target": target, "W_enc": weights.W_enc, "W_dec": weights.W_dec}[where][:, 3] = float(
        "nan"
    )
    before = [t.clone() for t in weights]
    step = Step(weights, *(Weights(*map(torch.zeros_like, weights)) for _ in range(2)))
    with pytest.raises(FloatingPointError, match=r"not finite|squared errors is nan"):
        step.forward(x, target, Choice(4), SCALE)
    assert all(
        torch.equal(a.nan_to_num(), b.nan_to_num()) for a, b in zip(before, weights, strict=True)
    )
