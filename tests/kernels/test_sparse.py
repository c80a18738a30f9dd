"""Decoding, dots and sums per feature against float64, forwards and backwards; two runs are the
same bits."""

import pytest
import torch
from torch import Tensor

from saelab import Code, kernels
from saelab.kernels import autograd
from saelab.sparsify import Choice
from tests.kernels import inputs, truth


def made_code(B: int = 50, F: int = 300, k: int = 7) -> Code:
    """Some tokens empty, some features empty, one feature on every other token, some values 0."""
    case = inputs.make("everyone", B, F)
    code = kernels.choose(case.x, case.W, case.b, Choice(k, "batch"))
    return code.with_values(torch.where(torch.arange(len(code.values)) % 5 == 0, 0.0, code.values))


def rms(error: Tensor) -> float:
    return float(error.double().square().mean().sqrt())


def too_far(fast: Tensor, plain: Tensor, exact: Tensor) -> bool:
    """Whether the error is more than twice plain torch's own."""
    return rms(fast - exact) > 2 * rms(plain - exact) + 1e-12 * rms(exact)


@pytest.mark.parametrize("D", [1, 37, 128])
def test_the_products_equal_dense_ones_by_hand(D):
    code, dense = made_code(), made_code().to_dense().double()
    W, G = (torch.randn(n, D, generator=torch.Generator().manual_seed(n)) for n in (300, 50))
    for fast, exact in (
        (kernels.spmm(code, W), dense @ W.double()),
        (kernels.spmm_t(code, G), dense.T @ G.double()),
        (kernels.sddmm(G, W, code), (G.double() @ W.double().T)[code.tokens, code.features]),
        (kernels.column_sums(code)[0], dense.sum(0)),
    ):
        torch.testing.assert_close(
            fast.double(), exact, rtol=1e-5, atol=1e-6 * float(exact.abs().max())
        )
    assert torch.equal(kernels.column_sums(code)[1], (dense != 0).sum(0))


def test_a_small_example_by_hand():
    code = Code(
        torch.tensor([0, 2, 2, 3]), torch.tensor([0, 2, 2]), torch.tensor([1.0, 2.0, 3.0]), 4
    )
    W = torch.tensor([[1.0, 0], [5, 5], [0, 1], [7, 7]])
    assert kernels.spmm(code, W).tolist() == [[1, 2], [0, 0], [0, 3]]
    assert kernels.spmm_t(code, torch.tensor([[1.0], [9], [10]])).tolist() == [[1], [0], [32], [0]]
    assert kernels.sddmm(torch.tensor([[2.0, 3], [0, 0], [4, 5]]), W, code).tolist() == [2, 3, 5]
    assert [t.tolist() for t in kernels.column_sums(code)] == [[1, 0, 5, 0], [1, 0, 2, 0]]


def test_the_counting_sort_equals_the_plain_one():
    from saelab.kernels.cpu import backend

    code, other = made_code(), made_code()
    assert all(
        torch.equal(a, b) for a, b in zip(backend.by_feature(code), other.by_feature(), strict=True)
    )


def gradients(case: truth.Case, name: str, dtype: torch.dtype) -> list[Tensor]:
    """x_hat and the gradients of a squared error in x, W_enc, b_enc, W_dec and b_dec."""
    x, W_enc, b_enc, W_dec = (
        t.to(dtype).requires_grad_() for t in (case.x, case.W, case.b, case.W_dec)
    )
    b_dec = torch.full((x.shape[1],), 0.1, dtype=dtype, requires_grad=True)
    with kernels.backend(name):
        code = kernels.choose((x - b_dec).detach(), W_enc.detach(), b_enc.detach(), Choice(5))
        x_hat = autograd.decode(autograd.encode(code, x, b_dec, W_enc, b_enc), W_dec) + b_dec
        loss = (x_hat - x.detach() ** 2).square().sum()
        return [x_hat.detach(), *torch.autograd.grad(loss, [x, W_enc, b_enc, W_dec, b_dec])]


@pytest.mark.parametrize("name", ["random", "structured", "few_positive", "everyone"])
def test_gradients_are_as_close_to_float64_as_plain_torch_and_a_worse_twin_is_caught(name):
    case = inputs.make(name, B=60)
    fast, plain = gradients(case, "cpu", torch.float32), gradients(case, "reference", torch.float32)
    exact = gradients(case, "reference", torch.float64)
    for ours, torchs, right in zip(fast, plain, exact, strict=True):
        assert not too_far(ours, torchs, right)
        assert too_far(ours * (1 + 2.0**-18), torchs, right)


def test_the_gradients_pass_a_numerical_check_in_float64():
    case = inputs.make("random", B=3, F=8, D=4)
    x, W_enc, b_enc, W_dec = (
        t.double().requires_grad_() for t in (case.x, case.W, case.b, case.W_dec)
    )
    b_dec = torch.full((4,), 0.1, dtype=torch.float64, requires_grad=True)

    def x_hat(x, b_dec, W_enc, b_enc, W_dec, scale=1.0):
        code = kernels.choose((x - b_dec).detach(), W_enc.detach(), b_enc.detach(), Choice(3))
        return autograd.decode(autograd.encode(code, x, b_dec, W_enc, b_enc), W_dec) * scale + b_dec

    assert torch.autograd.gradcheck(x_hat, (x, b_dec, W_enc, b_enc, W_dec))
    wrong = lambda *inputs: x_hat(*inputs) + 1e-3 * (inputs[0].detach() ** 2)  # noqa: E731
    assert not torch.autograd.gradcheck(
        wrong, (x, b_dec, W_enc, b_enc, W_dec), raise_exception=False
    )


def test_two_runs_are_the_same_bits():
    case = inputs.make("structured", B=60)
    assert all(
        map(
            torch.equal,
            gradients(case, "cpu", torch.float32),
            gradients(case, "cpu", torch.float32),
        )
    )


def test_one_thread_or_two_give_the_same_bits():
    case, before = inputs.make("structured", B=60), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = gradients(case, "cpu", torch.float32)
        torch.set_num_threads(2)
        two = gradients(case, "cpu", torch.float32)
    finally:
        torch.set_num_threads(before)
    assert all(map(torch.equal, one[:5], two[:5]))
    torch.testing.assert_close(one[5], two[5])  # b_dec's last product is torch's
