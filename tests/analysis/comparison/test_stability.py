"""Stability over seeds: what is shared by construction is found again, and nothing else is."""

import copy

import numpy as np
import pytest
import torch
from scipy.sparse import csr_array

from saelab import SAE, matching
from saelab.analysis.comparison.stability import over_runs, stability
from saelab.sparsify import Choice

F, D, N, SHARED = 24, 64, 3000, 16


@pytest.fixture(scope="module")
def three():
    """Three dictionaries with SHARED rows in common, in three orders, the rest their own; the
    codes fire alike where rows are shared, features 0 and 1 always together."""
    rng, common = np.random.default_rng(0), matching.random_rows(SHARED, D, 1)
    active_NS = (rng.random((N, SHARED)) < 0.05) * rng.uniform(0.5, 1, (N, SHARED))
    active_NS[:, 1] = active_NS[:, 0] * 0.9
    saes, codes, orders = {}, {}, {}
    for seed in range(3):
        order_F = rng.permutation(F)
        own = matching.random_rows(F - SHARED, D, 10 + seed)
        alone_NR = (rng.random((N, F - SHARED)) < 0.05) * 1.0
        sae = SAE(D, F, Choice(2), seed=seed)
        sae.W_dec.data = torch.cat([common, own])[order_F]
        saes[str(seed)], orders[str(seed)] = sae, order_F
        codes[str(seed)] = csr_array(np.concatenate([active_NS, alone_NR], 1)[:, order_F])
    return saes, codes, orders


def test_what_is_shared_comes_again_in_every_seed_and_what_is_not_in_none(three):
    saes, codes, orders = three
    for name, each in stability(saes, codes).items():
        shared_F = (orders[name] < SHARED).astype(float)
        np.testing.assert_array_equal(each.cosine, shared_F)
        pair_F = orders[name] < 2  # fires with two features: the other may be its partner
        np.testing.assert_array_equal(each.cofiring[~pair_F], shared_F[~pair_F])
        assert each.nulls["cosine"] < 0.05 and each.nulls["cofiring"] < 0.05


def test_codes_of_other_tokens_are_caught(three):
    saes, codes, _ = three
    moved = {**codes, "1": codes["1"][np.random.default_rng(1).permutation(N)]}
    assert stability(saes, moved)["1"].mean("cofiring") < 0.05


def test_a_group_whose_rows_have_turned_in_their_plane_is_found_as_a_subspace(three):
    saes, codes, orders = three
    turned = copy.deepcopy(saes["1"])
    places = [int(np.flatnonzero(orders["1"] == i)[0]) for i in (0, 1)]
    plane_2D = torch.linalg.qr(turned.W_dec.data[places].T).Q.T
    turn = torch.tensor([[0.5, 3**0.5 / 2], [-(3**0.5) / 2, 0.5]])
    turned.W_dec.data[places] = turn @ plane_2D
    each = stability({"0": saes["0"], "1": turned}, codes)["0"]
    mine = [int(np.flatnonzero(orders["0"] == i)[0]) for i in (0, 1)]
    assert each.subspace[mine] == pytest.approx(1, abs=1e-5)
    assert np.isnan(each.subspace).sum() == F - 2  # the rest has no group
    away = copy.deepcopy(turned)
    away.W_dec.data[places] = matching.random_rows(2, D, 99)
    assert stability({"0": saes["0"], "1": away}, codes)["0"].subspace[mine].max() < 0.3


def test_the_mean_over_three_seeds_has_an_interval_and_over_two_none(three):
    saes, codes, _ = three
    whole = over_runs(stability(saes, codes), "cosine")
    assert whole.value == pytest.approx(SHARED / F) and whole.low is not None
    two = {name: saes[name] for name in ("0", "1")}
    assert over_runs(stability(two, codes), "cosine").low is None
