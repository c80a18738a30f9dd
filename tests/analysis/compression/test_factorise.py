"""Matrices as factors: the change of outputs is what is minimised, at the bits that are stated."""

import pytest
import torch

from saelab.analysis.compression import METHODS, Gram, Plan, factorise, whitening
from saelab.analysis.compression.ksvd import learn
from saelab.analysis.compression.pursuit import pursuit
from saelab.dictionaries.pursuit import pursue
from saelab.errors import UsageError

INPUTS, OUTPUTS = 24, 96


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs(seed: int) -> torch.Tensor:
    """[N, I]: tokens in directions of their own, whose sizes span three orders of magnitude."""
    turn, _ = torch.linalg.qr(draw(INPUTS, INPUTS, seed=seed))
    return draw(4000, INPUTS, seed=seed + 1) * torch.logspace(0, -3, INPUTS).double() @ turn


def moments(x_NI: torch.Tensor) -> Gram:
    return Gram(len(x_NI), x_NI.T @ x_NI / len(x_NI))


def union_of_subspaces() -> torch.Tensor:
    """[I, O]: columns of 3 of 24 atoms each, which lie in no common subspace."""
    atoms, codes = draw(INPUTS, INPUTS, seed=5), torch.zeros(INPUTS, OUTPUTS, dtype=torch.float64)
    for column in range(OUTPUTS):
        chosen = torch.randperm(INPUTS, generator=torch.Generator().manual_seed(column))[:3]
        codes[chosen, column] = draw(3, seed=100 + column)
    return atoms @ codes


def change(x_NI: torch.Tensor, W_IO: torch.Tensor, made: torch.Tensor) -> float:
    """||x (W - W')||^2 / ||x W||^2."""
    return float((x_NI @ (W_IO - made.double())).square().sum() / (x_NI @ W_IO).square().sum())


def test_the_pursuit_of_products_is_the_one_of_vectors():
    atoms = torch.nn.functional.normalize(draw(40, 16, seed=1), dim=1)
    signals = draw(60, 16, seed=2)
    codes = pursuit(signals, atoms, 5)
    torch.testing.assert_close(codes, pursue(signals, atoms, 5, "orthogonal").code.to_dense())
    left = signals - codes @ atoms
    assert float((left @ atoms.T)[codes != 0].abs().max()) < 1e-10, "solved for exactly"
    assert pursuit(signals, atoms, 20).count_nonzero(1).max() <= 16, "none in the others' span"


def test_k_svds_error_never_rises_and_codes_are_as_sparse_as_asked():
    signals = draw(60, 16, seed=3).float()
    learnt = learn(signals, 24, 3, rounds=6)
    assert all(b <= a * (1 + 1e-6) for a, b in zip(learnt.errors, learnt.errors[1:], strict=False))
    assert learnt.errors[-1] < 0.8 * learnt.errors[0]
    assert learnt.codes_OK.count_nonzero(1).max() <= 3
    torch.testing.assert_close(learnt.atoms_KI.norm(dim=1), torch.ones(24))


def test_whitened_errors_are_errors_of_outputs_and_others_moments_are_not():
    x, W, other = inputs(0), draw(INPUTS, OUTPUTS, seed=7), draw(INPUTS, OUTPUTS, seed=8)
    of_outputs = (x @ (W - other)).square().sum()

    def whitened(x_NI: torch.Tensor) -> torch.Tensor:
        return len(x) * (whitening(moments(x_NI), "here").T @ (W - other)).square().sum()

    torch.testing.assert_close(whitened(x), of_outputs, rtol=1e-5, atol=0)
    assert abs(float(whitened(inputs(20)) / of_outputs) - 1) > 0.01


def test_calibrated_by_its_own_inputs_outputs_change_least():
    x, fresh, W = inputs(0), inputs(0)[::2], union_of_subspaces()
    L, wrong = whitening(moments(x), "here"), whitening(moments(inputs(30)), "there")
    plan = Plan(0.3, rounds=6)
    own = {name: change(fresh, W, factorise(W, L, name, plan).product_IO) for name in METHODS}
    assert own["cospadi"] < 0.7 * own["dictionary"] and own["whitened-svd"] < 0.7 * own["svd"]
    for name in ("cospadi", "whitened-svd"):  # the twin: another matrix's moments
        assert change(fresh, W, factorise(W, wrong, name, plan).product_IO) > 1.3 * own[name]


def test_a_sparse_dictionary_fits_columns_of_many_subspaces_and_low_rank_those_of_one():
    many, one = union_of_subspaces(), draw(INPUTS, 13, seed=9) @ draw(13, OUTPUTS, seed=10)
    plan = Plan(0.3, rounds=6)  # room for rank 13

    def left(W_IO: torch.Tensor, method: str) -> float:
        made = factorise(W_IO, None, method, plan).product_IO
        return change(torch.eye(INPUTS).double(), W_IO, made)

    assert left(many, "cospadi") < 0.5 * left(many, "whitened-svd")
    assert left(one, "whitened-svd") < 1e-5 < left(one, "cospadi")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("ratio", [0.2, 0.5])
def test_bits_are_the_share_that_is_kept(method: str, ratio: float):
    W = draw(INPUTS, OUTPUTS)
    made = factorise(W, whitening(moments(inputs(0)), "here"), method, Plan(ratio, rounds=1))
    (n_inputs, n_atoms), n_outputs = made.dictionary_IK.shape, made.codes_KO.shape[1]
    stored = made.codes_KO.count_nonzero() if METHODS[method].sparse else made.codes_KO.numel()
    mask = n_atoms * n_outputs if METHODS[method].sparse else 0
    assert made.bits == 16 * n_inputs * n_atoms + 16 * stored + mask
    kept = made.bits / (16 * W.numel())
    assert 0.85 * (1 - ratio) < kept <= 1 - ratio


def test_moments_that_leave_directions_out_are_refused_with_their_rank_and_a_ridge_helps():
    flat = inputs(0)
    flat = flat - flat.mean(1, keepdim=True)  # as a layer norm without a bias gives
    with pytest.raises(UsageError, match=r"at here have rank 23 of 24 on 4,000.*--ridge 1e-6"):
        whitening(moments(flat), "here")
    assert torch.isfinite(whitening(moments(flat), "here", ridge=1e-6)).all()
    few = inputs(0)[:10]
    with pytest.raises(UsageError, match="rank 10 of 24 on 10 tokens"):
        whitening(moments(few), "here")


def test_what_cannot_be_meant_is_refused():
    W = draw(8, 8)
    with pytest.raises(UsageError, match="no method 'pca'; there are cospadi"):
        factorise(W, None, "pca", Plan(0.2))
    with pytest.raises(UsageError, match=r"ratio=0\.95 leaves a matrix of 8 x 8 no room"):
        factorise(W, None, "svd", Plan(0.95))
