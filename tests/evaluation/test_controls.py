"""Baselines that learned nothing are what they say."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice, Threshold
from saelab.errors import UsageError
from saelab.evaluation import controls, rows
from saelab.evaluation.rows import Metric
from saelab.evaluation.separation import not_separated, separation
from saelab.evaluation.synthetic import World
from tests.evaluation.worlds import SMALL, fvu, oracle


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Samples of the small world."""
    return World(SMALL).sample(4000, seed=1)[0]


def batches(x: torch.Tensor, n: int) -> list[torch.Tensor]:
    """n batches of 256 rows."""
    return [
        x[torch.randperm(len(x), generator=torch.Generator().manual_seed(i))[:256]]
        for i in range(n)
    ]


def test_a_random_sae_has_the_shape_the_bias_and_the_l0(x: torch.Tensor):
    known = oracle(World(SMALL))
    twin = controls.random_init(known, seed=3, l0=controls.l0(known, x))
    assert twin.W_dec.shape == known.W_dec.shape and torch.equal(twin.b_dec, known.b_dec)
    assert twin.sparsify == Choice(round(controls.l0(known, x)))
    assert not torch.equal(twin.W_dec, controls.random_init(known, 4, 2.0).W_dec)
    assert torch.equal(twin.W_enc, twin.W_dec) and fvu(twin, x) > 5 * fvu(known, x)


def test_l0_by_hand():
    sae = oracle(World(SMALL))
    one = sae.b_dec + 2 * sae.W_dec[3]
    assert controls.l0(sae, torch.stack([one, one + 3 * sae.W_dec[5], sae.b_dec]).detach()) == 1.0


def test_an_untrained_sae_has_a_budget_of_its_own_and_none_of_the_levels():
    sae = SAE(32, 24, Threshold(signed=True))
    sae.levels = torch.full((24,), 9.0)
    twin = controls.random_init(sae, 1, 3.4)
    assert twin.sparsify == Choice(3, signed=True) and twin.levels is None
    assert controls.random_init(sae, 1, 0.2).sparsify.k == 1


def test_an_untrained_transcoder_keeps_the_linear_path(x: torch.Tensor):
    sae = SAE(32, 24, Choice(3), transcoder=True, skip=True)
    sae.W_skip.data.copy_(torch.eye(32) * 0.9)
    twin = controls.random_init(sae, 1, 3.0)
    assert torch.equal(twin.W_skip, sae.W_skip) and twin.W_skip is not sae.W_skip
    without = controls.random_init(SAE(32, 24, Choice(3), transcoder=True), 1, 3.0)
    assert fvu(twin, x) < 0.5 < fvu(without, x)  # what the control hid when it had no skip


def test_a_permuted_decoder_keeps_the_code_and_the_set_of_rows(x: torch.Tensor):
    known = oracle(World(SMALL))
    twin = controls.permuted_decoder(known, seed=1)
    assert torch.equal(twin.encode(x).to_dense(), known.encode(x).to_dense())
    assert torch.equal(twin.W_dec.sum(1).sort().values, known.W_dec.sum(1).sort().values)
    assert not torch.equal(twin.W_dec, known.W_dec) and fvu(twin, x) > 1
    assert torch.equal(known.W_dec, oracle(World(SMALL)).W_dec)  # the original is left alone


def test_a_frozen_decoder_stays_random_while_its_encoder_learns(x: torch.Tensor):
    known = SAE(32, 24, Choice(3), seed=7)
    twin = controls.frozen_decoder(known, batches(x, 150), n_steps=150, rate=1e-2, seed=5, l0=3)
    start = controls.random_init(known, 5, 3)
    start.b_dec.data.copy_(x.mean(0))
    assert torch.equal(twin.W_dec, start.W_dec) and not torch.equal(twin.W_enc, start.W_enc)
    assert fvu(oracle(World(SMALL)), x) < fvu(twin, x) < 0.95 * fvu(start, x)
    large = controls.frozen_decoder(
        known, batches(1024 * x, 150), n_steps=150, rate=1e-2, seed=5, l0=3
    )
    assert fvu(large, 1024 * x) == pytest.approx(fvu(twin, x), rel=1e-3)
    short = [
        controls.frozen_decoder(known, batches(x, 9), n_steps=9, seed=5, l0=3).W_enc
        for _ in range(2)
    ]
    assert torch.equal(*short)


def test_a_frozen_decoder_asks_for_enough_batches_and_for_no_transcoder(x: torch.Tensor):
    with pytest.raises(UsageError, match="20 steps need as many batches, there were 3"):
        controls.frozen_decoder(SAE(32, 24, Choice(3)), batches(x, 3), n_steps=20, l0=3)
    with pytest.raises(UsageError, match="not for transcoders"):
        controls.frozen_decoder(
            SAE(32, 24, Choice(3), transcoder=True), batches(x, 3), n_steps=3, l0=3
        )


@pytest.mark.parametrize("form", [Choice(2), Threshold(0.2)])
def test_a_control_is_matched_to_an_l0_in_its_inference_form(x: torch.Tensor, form):
    start = SAE(32, 24, form, seed=3)
    for wanted in (1.0, 4.0):
        spent = controls.l0(controls.matched(start, wanted, x), x)
        assert abs(spent - wanted) < 0.05 * wanted
    assert start.sparsify == form and start.levels is None


def test_a_shuffled_code_and_random_directions_keep_l0_and_lose_the_activation(x: torch.Tensor):
    known = oracle(World(SMALL))
    x_hat_ND, l0_N, _ = controls.shuffled_code(known)(x)
    assert float(l0_N.float().mean()) == pytest.approx(controls.l0(known, x))
    centred = (x - x.mean(0)).square().sum()
    assert (x - x_hat_ND).square().sum() > centred > 10 * (x - known(x)).square().sum()
    twin = controls.random_directions(known, seed=2)
    assert controls.l0(twin, x) == controls.l0(known, x) and fvu(twin, x) > 10 * fvu(known, x)


def test_a_metric_that_a_control_equals_is_marked():
    rng = np.random.default_rng(0)
    error_G = rng.uniform(1, 2, 40)
    row = Metric("fvu", "FVU", "FVU", "", "lower", lambda s: s["error"] / s["spread"])
    sums = {
        name: {"reconstruction": {"error": error_G * by, "spread": np.full(40, 10.0)}}
        for name, by in (("sae", 1.0), ("worse", 1.5), ("equal", rng.uniform(0.9, 1.1, 40)))
    }
    told = separation(sums, ["worse", "equal", "sae"], [row], 40)
    marked = not_separated({"separation": told})
    assert marked == {"fvu": ["equal", "sae"]}


def test_a_control_is_asked_only_what_it_can_answer():
    """One with the SAE's own code fires as it does, and the oracle need not be beaten."""
    fvu_row = Metric("fvu", "FVU", "FVU", "", "lower", lambda s: s["error"])
    dense = Metric("dense", "", "", "", "lower", lambda s: s["n"][..., 0], source="firing")
    sums = {
        name: {"reconstruction": {"error": np.ones(40)}, "firing": {"n": np.ones((40, 1))}}
        for name in ("sae", "permuted_decoder", "random_init", "oracle")
    }
    told = separation(sums, [name for name in sums if name != "sae"], [fvu_row, dense], 40)
    pairs = {(row["metric"], row["control"]) for row in told}
    assert pairs == {
        ("fvu", "permuted_decoder"),
        ("fvu", "random_init"),
        ("dense", "random_init"),
    }


def test_dead_features_do_not_make_a_control_look_sparser():
    """Half of the features that fire are dense in both; most of the control's are dead."""
    fired_GF = np.zeros((40, 20))
    fired_GF[:, :5], fired_GF[:, 5:10] = 10, 0.1
    dead_GF = fired_GF.copy()
    dead_GF[:, :9] = 0  # leaves one that is not dense
    dead_GF[:, 0] = 10
    tokens_G = np.full(40, 20.0)
    (row,) = (row for row in rows.table().values() if row.key == "dense_fraction")
    sums = {
        name: {"firing": {"fired": fired, "tokens": tokens_G}}
        for name, fired in (("sae", fired_GF), ("random_init", dead_GF))
    }
    (said,) = separation(sums, ["random_init"], [row], 40)
    assert said["value"] == 0 and said["verdict"] == "not told apart"
    (flattered,) = separation(sums, ["random_init"], [row._replace(compared=None)], 40)
    assert flattered["value"] == 0.2 and flattered["verdict"] == "worse"
