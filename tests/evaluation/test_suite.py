"""The suite's numbers by hand: shrinkage, bunched firing, how a feature reads and writes, what
decoder rows share, and when a control is not told from the SAE."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.evaluation import core, meta, stated
from saelab.evaluation.stated import Stated
from saelab.statistics import Estimate, weights


def test_shrinkage_by_hand():
    """x = (2, 0), (0, 1) told as half of each: lengths are halved, and twice as long fits best."""
    x_ND = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    sums = {name: float(column.sum()) for name, column in core._columns(x_ND, x_ND / 2).items()}
    arrays = {name: np.array(value) for name, value in sums.items()}
    assert core.l2_ratio(arrays) == 0.5 and core.relative_bias(arrays) == 0.5
    exact = {name: np.array(float(c.sum())) for name, c in core._columns(x_ND, x_ND).items()}
    assert core.l2_ratio(exact) == core.relative_bias(exact) == 1


def test_consistency_counts_documents_and_leaves_dead_features_out():
    fired_GF = np.array([[3.0, 1, 0], [0, 1, 0]])
    sums = {"fired": fired_GF.sum(0), "documents": (fired_GF > 0).sum(0).astype(float)}
    assert core.consistency(sums) == (3 / 1 + 2 / 2) / 2
    assert np.isnan(core.consistency({name: 0 * part for name, part in sums.items()}))


def test_a_tied_feature_reads_as_it_writes_and_dead_ones_do_not_count():
    sae = SAE(16, 40, Choice(4), seed=1)
    live_F = torch.arange(40) < 30
    sae.W_enc.data[~live_F] *= -1
    (row,) = core.of_rows(sae, live_F, 0)
    assert row.estimate.value == pytest.approx(1) and abs(row.estimate.null) < 0.2
    (all_,) = core.of_rows(sae, torch.ones(40, dtype=torch.bool), 0)
    assert all_.estimate.value == pytest.approx(0.5)
    assert core.of_rows(sae, torch.zeros(40, dtype=torch.bool), 0) == []


def test_rows_that_share_directions_are_told_and_random_ones_as_by_chance(
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr(meta, "BATCH", 64)
    monkeypatch.setattr(meta, "RATE", 5e-3)
    rng = np.random.default_rng(0)
    parts = rng.standard_normal((8, 16))
    mixed = torch.from_numpy(np.repeat(parts, 8, 0) + 0.2 * rng.standard_normal((64, 16))).float()
    live_F = torch.ones(64, dtype=torch.bool)
    (made,) = meta.structure(mixed, live_F, n_steps=40)
    assert made.estimate.low > made.estimate.null + 0.1
    noise = torch.from_numpy(rng.standard_normal((64, 16))).float()
    (chance,) = meta.structure(noise, live_F, n_steps=40)
    assert abs(chance.estimate.value - chance.estimate.null) < 0.1


def one(values_G: np.ndarray, better: str = "lower") -> Stated:
    sums = np.stack([values_G, np.ones(len(values_G))], 1)
    ratio = lambda s: s[..., 0] / s[..., 1]  # noqa: E731
    return Stated("core", "a", better, *stated.drawn(sums, ratio, weights(len(values_G))))


def test_a_control_that_is_as_good_is_marked_and_a_worse_one_is_not():
    rng = np.random.default_rng(0)
    mine_G = rng.uniform(1, 2, 60)
    by_name = {
        "sae": [one(mine_G)],
        "worse": [one(mine_G + 0.01)],
        "equal": [one(mine_G + rng.normal(0, 0.2, 60))],
        "oracle": [one(mine_G - 0.5)],
        "random_init": [one(mine_G + 1)],
    }
    rows = stated.table(by_name, null="random_init")
    assert stated.not_separated(rows) == {("core", "a", ""): ["equal"]}
    by_dictionary = {row["dictionary"]: row for row in rows}
    assert by_dictionary["worse"]["difference"]["value"] == pytest.approx(-0.01)
    assert by_dictionary["sae"]["null"] == pytest.approx(mine_G.mean() + 1)
    assert "verdict" not in by_dictionary["oracle"]


def test_numbers_of_other_units_are_compared_by_their_intervals():
    mine = Stated("a", "b", "higher", Estimate(0.9, 0.8, 1.0))
    near, far = (mine._replace(estimate=Estimate(v, v - 0.1, v + 0.1)) for v in (0.8, 0.5))
    assert not stated.difference(mine, near).excludes_zero
    assert stated.difference(mine, far).above(0)
