"""Metrics against known features: by hand, at their known nulls, for an SAE that knows everything
and one trained."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import SAE, Choice, matching
from saelab.activations import Cache
from saelab.code import Code
from saelab.errors import UsageError
from saelab.evaluation import ground_truth, synthetic_cache
from saelab.evaluation.synthetic import World
from tests.evaluation.worlds import SMALL, oracle

X, Y = torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])


def test_matching_by_hand():
    one = torch.stack([X, Y, -X])
    found = matching.match(one, torch.stack([0.1 * X + Y, X]))
    assert found.rows.tolist() in ([0, 1], [1, 2])
    assert found.cosines.abs().sum().item() == pytest.approx(1 + 1 / math.sqrt(1.01))
    assert matching.mcc(one, torch.stack([Y, X])) == pytest.approx(1.0)
    assert matching.mcc(torch.stack([X, X]), torch.stack([X, Y])) == pytest.approx(0.5)
    assert matching.mcc(torch.stack([-X, Y]), torch.stack([X, Y])) == pytest.approx(1.0)
    signed = matching.match(torch.stack([-X, Y]), torch.stack([X, Y]), signed=False).cosines
    assert sorted(signed.tolist()) == [0.0, 0.0]  # cosines -1 and 1 sum to no more


def test_greedy_matching_would_be_worse():
    one, other = torch.stack([X, X + 0.1 * Y]), torch.stack([X, X + 0.05 * Y])
    cosines = (
        torch.nn.functional.normalize(one, dim=1) @ torch.nn.functional.normalize(other, dim=1).T
    )
    best = max(cosines[0, 0] + cosines[1, 1], cosines[0, 1] + cosines[1, 0])
    assert matching.match(one, other).cosines.sum().item() == pytest.approx(best.item())


@pytest.mark.parametrize(
    ("width", "rows", "features", "null"),
    [(16, 64, 64, 0.57), (32, 128, 128, 0.45), (64, 256, 512, 0.39)],
)
def test_the_null_of_mcc_is_what_random_dictionaries_get(
    width: int, rows: int, features: int, null: float
):
    truth = matching.random_rows(features, width, seed=99)
    values = [matching.null_mcc(rows, truth, seed) for seed in range(3)]
    assert np.mean(values) == pytest.approx(null, abs=0.012)


def test_stability_of_a_dictionary_with_itself_with_its_negative_and_with_chance():
    rows = matching.random_rows(80, 32, seed=5)
    shuffled = rows[torch.randperm(80, generator=torch.Generator().manual_seed(0))]
    same = matching.stability(rows, shuffled)
    assert (same.mean, same.found) == (pytest.approx(1.0), 1.0) and same.null_found < 0.05
    assert matching.stability(rows, -shuffled).found < 0.05
    assert matching.stability(rows, -shuffled, signed=True).found == 1.0
    other = matching.stability(rows, matching.random_rows(80, 32, seed=6))
    assert other.mean == pytest.approx(other.null_mean, abs=0.03)
    half = matching.stability(
        rows, torch.cat([shuffled[:40], matching.random_rows(40, 32, seed=6)])
    )
    assert half.found == pytest.approx(0.5, abs=0.05)


# Four tokens, two features; latent 0 is feature 0, latent 1 points against feature 1, latent 2 is
# feature 0 once more.
TRUTH = torch.tensor([[2.0, 0.0], [3.0, -1.0], [0.0, 4.0], [1.0, -2.0]])
CODE = torch.tensor([[1.0, 0.0, 0.0], [0.0, 5.0, 1.0], [2.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
ROWS = torch.stack([X, -Y, X + 0.2 * Y])


def counted(code: torch.Tensor, signed: bool) -> list[list[float]]:
    found = ground_truth.partners(ROWS, torch.stack([X, Y]))
    return ground_truth.counts(
        Code.from_mask(code, code != 0), TRUTH, found, signed=signed
    ).tolist()


def test_detection_by_hand():
    hits, fired, present = counted(CODE, signed=False)
    assert (hits, fired, present) == ([2, 1, 1], [3, 2, 1], [3, 2, 3])
    found = ground_truth.detection(np.array([hits, fired, present]))
    assert found.precision.tolist() == pytest.approx([2 / 3, 1 / 2, 1])
    assert found.recall.tolist() == pytest.approx([2 / 3, 1 / 2, 1 / 3])
    assert found.f1.tolist() == pytest.approx([4 / 6, 2 / 4, 2 / 4])


def test_a_signed_latent_is_asked_for_both_sides_and_the_right_sign():
    code = CODE.clone()
    code[2, 1] = -1.0  # against -Y: now right
    hits, fired, present = counted(code, signed=True)
    assert (hits[1], fired[1], present[1]) == (2, 2, 3)
    assert counted(CODE, signed=True)[0][1] == 1  # with the wrong sign it is no hit


def test_a_latent_that_never_fires_scores_zero_and_duplicates_are_not_unique():
    silent = ground_truth.detection(np.array([[0.0], [0.0], [5.0]]))
    assert [part.tolist() for part in silent] == [[0.0], [0.0], [0.0]]
    assert ground_truth.uniqueness(
        ground_truth.partners(ROWS, torch.stack([X, Y]))
    ) == pytest.approx(2 / 3)


def make(folder: Path, spec, n_tokens: int) -> Cache:
    return Cache(synthetic_cache.write(spec, folder, n_tokens, context=128, dtype="float32"))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    return make(tmp_path_factory.mktemp("world") / "cache", SMALL, 60_000)


def test_an_sae_that_knows_everything_scores_one_and_a_random_one_its_null(cache: Cache):
    known = ground_truth.measure(oracle(World(SMALL)), cache, n_tokens=3000)
    for name in ("mcc", "uniqueness", "precision", "recall", "f1"):
        assert known[name]["value"] > 0.99 and known[name]["null"] < 0.75, name
    assert known["l0"] == pytest.approx(known["true_l0"], rel=0.01)
    for name in ("precision", "recall", "f1"):
        assert known[name]["low"] <= known[name]["value"] <= known[name]["high"]
    chance = ground_truth.measure(SAE(32, 24, Choice(2), seed=4), cache, n_tokens=3000)
    assert chance["mcc"]["value"] == pytest.approx(chance["mcc"]["null"], abs=0.06)
    assert chance["f1"]["value"] == pytest.approx(chance["f1"]["null"], abs=0.1)


def test_bipolar_features_need_signed_latents(tmp_path: Path):
    spec = replace(SMALL, bipolar=1.0)
    cache, sae = make(tmp_path / "cache", spec, 20_000), oracle(World(spec))
    signed = ground_truth.measure(sae, cache, n_tokens=2000)
    sae.sparsify = replace(sae.sparsify, signed=False)
    one_sided = ground_truth.measure(sae, cache, n_tokens=2000)
    assert signed["f1"]["value"] > 0.99 and signed["l0"] == pytest.approx(
        signed["true_l0"], rel=0.01
    )
    assert one_sided["l0"] < 0.6 * one_sided["true_l0"]  # half of what there is goes unseen


def test_training_on_the_cache_finds_the_features(cache: Cache, tmp_path: Path):
    import training

    options = {"features": 24, "k": 4, "tokens": 120_000, "batch": 512, "lr": 0.01}
    run = training.train(
        training.Config(cache=str(cache.path), out=str(tmp_path / "run"), **options)
    )
    found = ground_truth.measure(SAE.load(run), cache, n_tokens=2500)
    assert found["mcc"]["value"] > found["mcc"]["null"] + 0.2
    assert found["f1"]["value"] > 2 * found["f1"]["null"]


def test_an_sae_of_another_width_is_refused(cache: Cache):
    with pytest.raises(UsageError, match="d_out=16, the world width 32"):
        ground_truth.measure(SAE(16, 24, Choice(2)), cache)
