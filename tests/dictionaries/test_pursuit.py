"""Pursuit: the error never rises, known codes are found again, and a step that clamps without
looking is caught."""

import pytest
import torch

from saelab import Choice, kernels
from saelab.code import Code
from saelab.dictionaries import pursuit
from saelab.dictionaries.pursuit import METHODS, pursue
from saelab.errors import UsageError


def dictionary(
    n_features: int, width: int, seed: int = 0, dtype: torch.dtype = torch.float32
) -> torch.Tensor:
    """Random rows of unit norm."""
    rows = torch.randn(
        n_features, width, generator=torch.Generator().manual_seed(seed), dtype=dtype
    )
    return torch.nn.functional.normalize(rows, dim=1)


def sparse(n_tokens: int, n_features: int, k: int, seed: int = 1) -> Code:
    """k random features per token with values between 1 and 2."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.stack(
        [torch.randperm(n_features, generator=generator)[:k].sort().values for _ in range(n_tokens)]
    )
    values = 1 + torch.rand(n_tokens * k, generator=generator)
    return Code(torch.arange(0, n_tokens * k + 1, k), features.flatten(), values, n_features)


def rises(errors: torch.Tensor) -> bool:
    """Whether an error grows from one step to the next by more than rounding."""
    return bool((errors.diff(dim=0) > 1e-5 * errors[0]).any())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("seed", range(3))
def test_the_error_never_rises_and_is_that_of_the_code(method: str, seed: int):
    target = torch.randn(200, 24, generator=torch.Generator().manual_seed(seed))
    W = dictionary(96, 24, seed + 10)
    found = pursue(target, W, 12, method)
    assert found.errors.shape == (13, 200) and not rises(found.errors)
    torch.testing.assert_close(found.errors[0], target.double().square().sum(1))
    left = (target - found.code.to_dense() @ W).double().square().sum(1)
    torch.testing.assert_close(found.errors[-1], left, rtol=1e-3, atol=1e-5)
    assert int(found.code.starts.diff().max()) <= 12
    if method == "gradient":
        assert bool((found.code.values >= 0).all())


def test_clamping_without_looking_lets_the_error_rise(monkeypatch: pytest.MonkeyPatch):
    def blind(target, residual, W, atoms, values, active, signed):
        free = true_descend(target, residual, W, atoms, values, active, True)
        return free.clamp_min(0)

    true_descend = pursuit._descend
    monkeypatch.setattr(pursuit, "_descend", blind)
    correlated = torch.nn.functional.normalize(dictionary(20, 4) + 0.3, dim=1)
    target = torch.randn(5000, 4, generator=torch.Generator().manual_seed(0))
    assert rises(pursue(target, correlated, 8).errors)
    monkeypatch.undo()
    assert not rises(pursue(target, correlated, 8).errors)


def test_an_orthonormal_dictionary_gives_the_code_back():
    W = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    truth = sparse(50, 32, 5)
    for method in METHODS:
        code = pursue(kernels.spmm(truth, W), W, 5, method).code
        torch.testing.assert_close(code.to_dense(), truth.to_dense(), rtol=1e-4, atol=1e-4)


def test_orthogonal_pursuit_solves_for_its_coefficients_exactly():
    target = torch.randn(20, 16, generator=torch.Generator().manual_seed(0))
    W = dictionary(64, 16)
    code = pursue(target, W, 6, "orthogonal").code
    for token in range(20):
        pairs = slice(int(code.starts[token]), int(code.starts[token + 1]))
        best = torch.linalg.lstsq(
            W[code.features[pairs]].T.double(), target[token].double()
        ).solution
        torch.testing.assert_close(code.values[pairs].double(), best, rtol=1e-3, atol=1e-4)


def test_two_steps_by_hand():
    # Atoms e1 and (0.6, 0.8); target (2, 1): products 2 and 2, ties to the first. Step 1: 2 e1,
    # residual (0, 1). Step 2 adds the other: slopes (0, 0.8), direction (0.48, 0.64), length 0.64 /
    # 0.64 = 1, value 0.8.
    W = torch.tensor([[1.0, 0.0], [0.6, 0.8]], dtype=torch.float64)
    found = pursue(torch.tensor([[2.0, 1.0]], dtype=torch.float64), W, 2)
    torch.testing.assert_close(found.code.values, torch.tensor([2.0, 0.8], dtype=torch.float64))
    torch.testing.assert_close(
        found.errors[:, 0], torch.tensor([5.0, 1.0, 0.48**2 + 0.36**2], dtype=torch.float64)
    )


def test_the_true_dictionary_without_noise_does_no_worse_than_the_encoder():
    W, truth = dictionary(128, 64), sparse(300, 128, 4)
    x = kernels.spmm(truth, W)
    encoder = kernels.choose(x, W, torch.zeros(128), Choice(4))
    error = (x - kernels.spmm(encoder, W)).square().sum()
    for method in METHODS:
        assert float(pursue(x, W, 4, method).errors[-1].sum()) < float(error), method


def test_each_token_stops_at_its_own_number_of_steps():
    target, W = torch.randn(40, 16, generator=torch.Generator().manual_seed(0)), dictionary(64, 16)
    k = torch.arange(40) % 5
    for method in METHODS:
        found = pursue(target, W, k, method)
        assert bool((found.code.starts.diff() <= k).all())
        assert torch.equal(found.errors[3][k == 2], found.errors[2][k == 2])
        alone = pursue(target[4:5], W, 4, method).code
        torch.testing.assert_close(alone.to_dense()[0], found.code.to_dense()[4])


def test_rows_are_pursued_in_pieces_without_a_trace(monkeypatch: pytest.MonkeyPatch):
    target, W = torch.randn(50, 16, generator=torch.Generator().manual_seed(0)), dictionary(64, 16)
    whole = pursue(target, W, 5)
    monkeypatch.setattr(pursuit, "ROWS", 16)
    pieces = pursue(target, W, 5)
    assert torch.equal(whole.code.starts, pieces.code.starts) and torch.equal(
        whole.code.features, pieces.code.features
    )
    torch.testing.assert_close(whole.code.values, pieces.code.values)


def test_nothing_to_code_and_wrong_requests():
    W = dictionary(8, 4)
    for method in METHODS:
        found = pursue(torch.zeros(3, 4), W, 2, method)
        assert len(found.code.values) == 0 and not found.errors.any()
    with pytest.raises(UsageError, match="no pursuit 'greedy'; there are gradient"):
        pursue(torch.zeros(3, 4), W, 2, "greedy")
    with pytest.raises(UsageError, match=r"target has shape \[3, 5\], W \[8, 4\]"):
        pursue(torch.zeros(3, 5), W, 2)
    with pytest.raises(
        UsageError, match="k runs from 9 to 9: choose it between 0 and n_features=8"
    ):
        pursue(torch.zeros(3, 4), W, 9)
