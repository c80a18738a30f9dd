"""Which features two SAEs share: copies are found whole, and chance is not."""

import itertools

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from saelab import SAE, Choice, matching
from saelab.analysis.comparison import cofiring, features, splitting

D, F, N = 16, 40, 600


def make_sae(n_features=F, seed=0):
    return SAE(D, n_features, Choice(4), seed=seed)


def permuted(sae, order_F):
    """The same SAE with its features in another order."""
    twin = SAE(D, len(order_F), sae.sparsify)
    for name in ("W_enc", "b_enc", "W_dec"):
        getattr(twin, name).data.copy_(getattr(sae, name).data[order_F])
    twin.b_dec.data.copy_(sae.b_dec.data)
    return twin


@torch.no_grad()
def codes(sae, x_ND):
    return csr_array(sae.encode(x_ND).to_dense().numpy())


@pytest.fixture(scope="module")
def x_ND():
    return torch.randn(N, D, generator=torch.Generator().manual_seed(0))


def test_a_permuted_copy_is_found_whole_one_to_one(x_ND):
    sae = make_sae()
    order_F = torch.randperm(F, generator=torch.Generator().manual_seed(1))
    twin = permuted(sae, order_F)
    shared = features.shared(sae, twin, codes(sae, x_ND), codes(twin, x_ND))
    for part, by in (("matched", "matched"), ("cofiring", "cofiring")):
        assert shared[part]["first"]["value"] == shared[part]["second"]["value"] == 1
        pairs = shared["partners"][by]
        assert order_F[pairs["second"]].tolist() == pairs["first"]
        assert min(pairs["value"]) == pytest.approx(1, abs=1e-4)
    assert shared["only"] == {"first": [], "second": []}
    assert shared["splitting"]["first"]["split"]["value"] == 0
    assert shared["splitting"]["first"]["covered"][0]["value"] == 1


def test_a_copy_whose_decoder_is_in_another_order_is_caught(x_ND):
    sae = make_sae()
    twin = permuted(sae, torch.arange(F))
    twin.W_dec.data.copy_(sae.W_dec.data.roll(1, 0))
    shared = features.shared(sae, twin, codes(sae, x_ND), codes(twin, x_ND))
    matched, fired = (shared["partners"][name] for name in ("matched", "cofiring"))
    by_writing = dict(zip(matched["first"], matched["second"], strict=True))
    by_firing = dict(zip(fired["first"], fired["second"], strict=True))
    assert all(by_writing[feature] == (feature + 1) % F for feature in range(F))
    assert all(by_firing[feature] == feature for feature in by_firing)


def test_another_seed_shares_about_what_chance_gives(x_ND):
    one, other = make_sae(seed=0), make_sae(seed=5)
    shared = features.shared(one, other, codes(one, x_ND), codes(other, x_ND))
    matched = shared["matched"]["first"]
    assert matched["value"] == pytest.approx(matched["null"], abs=0.15)


def test_different_widths_leave_the_wider_ones_rest_alone(x_ND):
    sae = make_sae()
    narrow = permuted(sae, torch.arange(0, F, 2))
    shared = features.shared(narrow, sae, codes(narrow, x_ND), codes(sae, x_ND))
    assert shared["matched"]["first"]["value"] == 1
    assert shared["matched"]["second"]["value"] == pytest.approx(0.5, abs=0.1)
    fired = shared["fired"]["second"]
    alone = [feature for feature in range(1, F, 2) if fired[feature]]
    assert sorted(shared["only"]["second"]) == alone and shared["only"]["first"] == []
    assert len(shared["fired"]["first"]) == F // 2 and len(shared["fired"]["second"]) == F


def test_the_best_listed_pairs_are_those_of_an_exhaustive_search():
    rng = np.random.default_rng(0)
    for _ in range(30):
        listed = [(r, c) for r in range(4) for c in range(5) if rng.random() < 0.5]
        gains = torch.from_numpy(rng.uniform(0.3, 1, len(listed)))
        rows, columns = (torch.tensor([pair[side] for pair in listed]) for side in (0, 1))
        kept = matching.best_pairs(rows, columns, gains, (4, 5)).tolist()
        one_to_one = [
            chosen
            for size in range(1, 5)
            for chosen in itertools.combinations(range(len(listed)), size)
            if all(len({listed[each][side] for each in chosen}) == size for side in (0, 1))
        ]
        best = max(float(gains[list(chosen)].sum()) for chosen in one_to_one)
        assert float(gains[kept].sum()) == pytest.approx(best)
        assert tuple(kept) in one_to_one


def test_of_large_dictionaries_the_same_partners_are_found(monkeypatch):
    one, order_F = make_sae(60), torch.randperm(60, generator=torch.Generator().manual_seed(2))
    noisy_FD = one.W_dec[order_F].detach() + 0.05
    whole = matching.partners(one.W_dec.detach(), noisy_FD, signed=True)
    monkeypatch.setattr(matching, "MOST", 0)
    sparse = matching.partners(one.W_dec.detach(), noisy_FD, signed=True)
    assert order_F[sparse.columns].tolist() == sparse.rows.tolist() == list(range(60))
    assert sparse.columns.tolist() == whole.columns.tolist()
    torch.testing.assert_close(sparse.cosines, whole.cosines)
    assert not len(matching.candidates(torch.eye(3), torch.zeros(3, 3)).rows)


def test_correlations_are_numpys():
    rng = np.random.default_rng(1)
    one_NA = rng.exponential(size=(200, 5)) * (rng.random((200, 5)) < 0.3)
    other_NB = np.roll(one_NA, 2, 1) + 0.1 * (rng.random((200, 5)) < 0.2)
    found = cofiring.partners(csr_array(one_NA), csr_array(other_NB))
    assert ((found.rows + 2) % 5 == found.columns).all() and len(found.rows) == 5
    for row, column, value in zip(*found, strict=True):
        known = np.corrcoef(one_NA[:, row], other_NB[:, column])[0, 1]
        assert value == pytest.approx(known, abs=1e-5)
    assert not len(cofiring.partners(csr_array(one_NA), csr_array((200, 3))).rows)


def on(rows, n=100):
    column = np.zeros(n)
    column[list(rows)] = 1
    return column


def test_features_that_fire_once_on_the_same_token_are_no_partners(monkeypatch):
    codes_NF = np.zeros((400, 2))
    codes_NF[7, 0] = 1.0
    codes_NF[::20, 1] = 1.0
    codes = csr_array(codes_NF)
    assert cofiring.partners(codes, codes).rows.tolist() == [1]
    monkeypatch.setattr(cofiring, "FEWEST", 1)
    assert sorted(cofiring.partners(codes, codes).rows.tolist()) == [0, 1]


def test_a_feature_that_three_share_out_is_split_and_what_fires_everywhere_is_no_part():
    one_NA = csr_array(np.stack([on(range(30)), on(range(30, 60))], 1))
    parts = [on(range(14)), on(range(12, 23)), on(range(23, 29)), on(range(100))]
    other_NB = csr_array(np.stack([*parts, on(range(30, 60))], 1))
    split, same = splitting.splits(one_NA, other_NB)
    assert split.parts == [0, 1, 2] and split.is_split
    assert split.covered == pytest.approx([14 / 30, 23 / 30, 29 / 30])
    assert same.parts == [4] and same.covered == [1] and not same.is_split
    (whole,) = splitting.splits(other_NB, one_NA, [3])
    assert whole.covered == pytest.approx([0.3, 0.6])
