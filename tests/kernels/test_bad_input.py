"""What does not fit is refused by name and number; what is not finite, before anything is
chosen."""

import pytest
import torch

from saelab import kernels
from saelab.kernels.cpu import probe
from saelab.sparsify import Choice, Threshold
from tests.kernels import backends


def args(B: int = 6, F: int = 40, D: int = 8) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) for shape in ((B, D), (F, D), (F,))]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    ("place", "name", "count"), [(0, "x", 48), (1, "W_enc", 320), (2, "b_enc", 40)]
)
@pytest.mark.parametrize("backend", backends.NAMES)
@pytest.mark.parametrize(
    "sparsify", [Choice(3), Choice(3, "batch"), Choice(3, "feature", signed=True), Threshold(0.1)]
)
def test_numbers_that_are_not_finite_are_counted_and_located(
    sparsify, backend, place, name, count, bad
):
    backends.module(backend)
    tensors = backends.there(backend, *args())
    tensors[place].view(-1)[[5, 7]] = bad
    first = [5] if place == 2 else [0, 5]
    with kernels.backend(backend), pytest.raises(FloatingPointError) as error:
        kernels.choose(*tensors, sparsify)
    assert str(error.value) == f"2 of {count} entries of {name} are not finite, first at {first}"


def test_a_gradient_that_is_not_finite_is_named():
    grad, W_dec = torch.ones(6, 8), torch.ones(40, 8)
    grad[2, 3] = float("nan")
    with pytest.raises(
        FloatingPointError, match=r"1 of 48 entries of grad are not finite, first at \[2, 3\]"
    ):
        kernels.choose(*args(), Choice(3, beta=1.0), grad=grad, W_dec=W_dec)


@pytest.mark.parametrize("backend", backends.NAMES)
def test_what_does_not_fit_is_named_with_its_numbers(backend):
    backends.module(backend)
    x, W, b = backends.there(backend, *args())
    with kernels.backend(backend):
        with pytest.raises(ValueError, match=r"x has shape \[6, 7\], W_enc \[40, 8\]"):
            kernels.choose(x[:, :7], W, b, Choice(3))
        with pytest.raises(ValueError, match=r"b_enc has shape \[39\], must be \[40\]"):
            kernels.choose(x, W, b[:39], Choice(3))
        with pytest.raises(ValueError, match=r"k=41 is more than n_features=40"):
            kernels.choose(x, W, b, Choice(41))
        with pytest.raises(ValueError, match=r"budget of 7 pairs is more than the 6 tokens"):
            kernels.choose(x, W, b, Choice(3, "feature"), budget=torch.full((40,), 7))
        with pytest.raises(ValueError, match=r"beta=1.0 needs the gradient"):
            kernels.choose(x, W, b, Choice(3, beta=1.0))


def test_a_dtype_that_a_backend_lacks_is_named():
    x, W, b = (tensor.double() for tensor in args())
    code = kernels.choose(x, W, b, Choice(3))
    with kernels.backend("cpu"):
        for call in (
            lambda: kernels.choose(x, W, b, Choice(3)),
            lambda: kernels.spmm(code, W),
            lambda: kernels.spmm_t(code, x),
            lambda: kernels.sddmm(x, W, code),
            lambda: kernels.column_sums(code),
        ):
            with pytest.raises(
                ValueError,
                match=r"the cpu backend needs float32 on the cpu; .* is torch.float64 on cpu",
            ):
                call()
    with pytest.raises(ValueError, match="no backend 'gpu'"), kernels.backend("gpu"):
        pass
    with (
        pytest.raises(ValueError, match=r"screening in torch.float16"),
        probe.screening(torch.float16),
    ):
        pass


@pytest.mark.parametrize(
    "sparsify", [Choice(3), Choice(3, "batch"), Choice(3, "feature"), Threshold()]
)
def test_no_tokens_have_an_empty_code(sparsify):
    x, W, b = args(B=0)
    code = kernels.choose(x, W, b, sparsify)
    assert (code.n_tokens, code.n_features, len(code.features), len(code.values)) == (0, 40, 0, 0)
    assert kernels.spmm(code, W).shape == (0, 8)
