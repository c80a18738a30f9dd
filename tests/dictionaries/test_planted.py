"""Dictionaries that must be found again, and orthogonal matching pursuit against scikit-learn's."""

from itertools import pairwise

import pytest
import torch
from sklearn.linear_model import orthogonal_mp_gram

from benchmarks.dictionaries import MARGIN, margins
from saelab import kernels
from saelab.dictionaries import nonnegative, planted
from saelab.dictionaries.frank_wolfe import frank_wolfe
from saelab.dictionaries.ksvd import UPDATES, ksvd
from saelab.dictionaries.nonnegative import semi_nmf
from saelab.dictionaries.pursuit import pursue


def share_found(k: int, update: str, seed: int, n_rounds: int = 40) -> float:
    """Of 50 atoms of width 20, from 1,500 signals at 30 dB (Aharon, Elad and Bruckstein 2006)."""
    x_ND, atoms_FD = planted.sparse_signals(1500, 20, 50, k, seed=seed)
    learned = ksvd(x_ND, 50, k, n_rounds=n_rounds, seed=seed, update=update)
    return float((planted.cosines(atoms_FD, learned.W) > 0.99).double().mean())


@pytest.mark.parametrize("update", UPDATES)
def test_atoms_are_found_in_signals_of_few_and_not_of_many(update: str):
    found = [share_found(3, update, seed) for seed in range(3)]
    assert sum(found) / len(found) >= 0.9
    assert share_found(12, update, 0, n_rounds=5) < 0.3


@pytest.mark.parametrize("update", UPDATES)
def test_an_update_of_the_rows_never_raises_the_error(update: str):
    x_ND, _ = planted.sparse_signals(200, 10, 20, 3)
    W_FD = torch.nn.functional.normalize(x_ND[:20], dim=1)
    code = pursue(x_ND, W_FD, 3, "orthogonal").code
    new_FD, new_code = UPDATES[update](x_ND, W_FD, code)
    before, after = (
        float((x_ND - kernels.spmm(c, W)).square().sum())
        for c, W in ((code, W_FD), (new_code, new_FD))
    )
    assert after < before
    assert torch.allclose(new_FD.norm(dim=1), torch.ones(20, dtype=torch.float64))
    assert torch.equal(new_code.features, code.features)
    # New rows with the old values are no update: the error rises.
    assert float((x_ND - kernels.spmm(code, new_FD)).square().sum()) > after


def test_an_orthogonal_dictionary_is_found_by_frank_wolfe_and_stays_in_the_hull():
    x_ND, W_DD = planted.orthogonal(6000, 16, 0.15)
    learned = frank_wolfe(x_ND, n_steps=200, batch=500)
    assert float(planted.cosines(W_DD, learned.W).mean()) >= 0.99
    for step in (1, 3, 200):
        iterate_DD = frank_wolfe(x_ND, n_steps=step, batch=500).iterate.double()
        assert float(torch.linalg.matrix_norm(iterate_DD, 2)) <= 1 + 1e-6
    assert torch.allclose(learned.W @ learned.W.T, torch.eye(16), atol=1e-5)

    dense_ND, W_DD = planted.orthogonal(6000, 16, 1.0)  # a rotation of Gaussians tells nothing
    nothing = frank_wolfe(dense_ND, n_steps=200, batch=500)
    assert float(planted.cosines(W_DD, nothing.W).mean()) < 0.8


def test_semi_nmf_never_raises_its_error():
    x_ND, _ = planted.sparse_signals(200, 10, 20, 3)
    errors = semi_nmf(x_ND, 12, n_rounds=30).errors
    assert all(b <= a + 1e-9 for a, b in pairwise(errors))
    assert errors[-1] < 0.8 * errors[0]


def test_non_negative_codes_hold_where_rows_are_nearly_dependent(monkeypatch: pytest.MonkeyPatch):
    random = torch.Generator().manual_seed(4)
    plane_ND = torch.randn(60, 6, generator=random) @ torch.randn(6, 24, generator=random)
    rows_FD, x_ND = (plane_ND + 0.01 * torch.randn(60, 24, generator=random)).split([24, 36])
    W_FD = rows_FD / rows_FD.norm(dim=1, keepdim=True)

    def error() -> float:
        made_ND = nonnegative.sparse(x_ND, W_FD, 8, 30).to_dense() @ W_FD
        return float((x_ND - made_ND).square().sum() / x_ND.square().sum())

    assert error() < 0.05

    def clamped(product_NF: torch.Tensor, gram_FF: torch.Tensor) -> torch.Tensor:
        z_NF = x_ND @ torch.linalg.pinv(W_FD)
        return z_NF.clamp_min(1e-3 * float(z_NF.abs().mean()))

    monkeypatch.setattr(nonnegative, "start", clamped)
    assert error() > 0.3


def test_supports_are_scikit_learns():
    random = torch.Generator().manual_seed(0)
    W_FD = torch.randn(64, 24, generator=random, dtype=torch.float64)
    W_FD = W_FD / W_FD.norm(dim=1, keepdim=True)
    x_ND = torch.randn(200, 24, generator=random, dtype=torch.float64)
    gram, product = (W_FD @ W_FD.T).numpy(), (W_FD @ x_ND.T).numpy()
    theirs_NF = torch.from_numpy(orthogonal_mp_gram(gram, product, n_nonzero_coefs=6).T.copy())
    ours_NF = pursue(x_ND, W_FD, 6, "orthogonal").code.to_dense()
    assert torch.allclose(ours_NF, theirs_NF, atol=1e-9)

    single_NF = pursue(x_ND.float(), W_FD.float(), 6, "orthogonal").code.to_dense()
    clear_N = margins(x_ND, W_FD, 6) > MARGIN
    assert int(clear_N.sum()) > 190
    assert torch.equal((single_NF != 0)[clear_N], (theirs_NF != 0)[clear_N])
    # Plain matching pursuit, which never refits, chooses otherwise.
    plain_NF = pursue(x_ND, W_FD, 6, "gradient-signed").code.to_dense()
    assert not torch.equal(plain_NF != 0, theirs_NF != 0)
