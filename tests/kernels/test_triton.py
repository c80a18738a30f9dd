"""What holds of the Triton backend alone: interpreted on every machine, natively where there is a
GPU. Shapes are tiny."""

import pytest
import torch

from tests.kernels import backends, inputs, truth

pytest.importorskip("triton")

from saelab import kernels
from saelab.kernels import autograd
from saelab.sparsify import Choice

DEVICE = backends.device("triton")


@pytest.fixture(autouse=True)
def narrow_tiles(monkeypatch):
    from saelab.kernels.triton import screen

    monkeypatch.setattr(screen, "_ENTRIES", 100)


def test_a_screen_that_is_trusted_without_a_certificate_is_caught(monkeypatch):
    from saelab.kernels.triton import choose as triton_choose

    original = triton_choose._candidates
    monkeypatch.setattr(
        triton_choose, "_candidates", lambda *a: (original(*a)[0], torch.zeros(4, device=DEVICE))
    )
    case = inputs.make("constant", B=4, F=200, D=6)
    assert truth.objections(
        backends.choose("triton", case, Choice(3)), truth.pairs(case, Choice(3))
    )


def gradients(name: str, dtype: torch.dtype) -> list[torch.Tensor]:
    case = inputs.make("structured", B=4, F=40, D=6)
    x, W_enc, b_enc, W_dec = (
        tensor.to(dtype).requires_grad_()
        for tensor in backends.there("triton", case.x, case.W, case.b, case.W_dec)
    )
    with kernels.backend(name):
        code = kernels.choose(x.detach(), W_enc.detach(), b_enc.detach(), Choice(3, "batch"))
        x_hat = autograd.decode(autograd.encode(code, x, None, W_enc, b_enc), W_dec)
        return [
            x_hat.detach(),
            *torch.autograd.grad((x_hat - 1).square().sum(), [x, W_enc, b_enc, W_dec]),
        ]


def test_gradients_are_as_close_to_float64_as_plain_torch():
    runs = (
        gradients("triton", torch.float32),
        gradients("reference", torch.float32),
        gradients("reference", torch.float64),
    )
    for ours, torchs, exact in zip(*runs, strict=True):
        errors = [float((t - exact).double().square().mean().sqrt()) for t in (ours, torchs)]
        assert errors[0] <= 2 * errors[1] + 1e-12
    assert all(map(torch.equal, runs[0], gradients("triton", torch.float32)))


def test_fired_features_are_counted():
    code = backends.choose("triton", inputs.make("few_positive", B=4, F=40, D=6), Choice(3))
    with kernels.backend("triton"):
        sums, fired = kernels.column_sums(
            kernels.Code(*backends.there("triton", code.starts, code.features, code.values), 40)
        )
    assert torch.equal(fired.cpu(), (code.to_dense() != 0).sum(0))
    torch.testing.assert_close(sums.cpu(), code.to_dense().sum(0))
