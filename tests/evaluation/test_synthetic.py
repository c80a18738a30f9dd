"""The synthetic world does what its spec says, and its cache is a cache like any other."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.evaluation import synthetic_cache
from saelab.evaluation.synthetic import Spec, World
from saelab.statistics.draws import stream
from tests.evaluation.worlds import SMALL

SPEC = Spec(width=32, n_features=120, roots=4, branching=3, depth=2)


@pytest.fixture(scope="module")
def world() -> World:
    """A world with every mechanism on."""
    return World(replace(SPEC, bipolar=0.3))


@pytest.fixture(scope="module")
def drawn(world: World) -> tuple[torch.Tensor, torch.Tensor]:
    """60,000 samples of it."""
    return world.sample(60_000, seed=3)


def test_every_feature_fires_with_its_own_chance_children_included(world: World, drawn):
    fired = (drawn[1] != 0).double().mean(0)
    error = (world.chance_G * (1 - world.chance_G) / 60_000).sqrt()
    assert ((fired - world.chance_G) / error).abs().max() < 4.5
    free = world.parent_G < 0
    assert world.chance_G[free].max() <= 0.4 and world.chance_G.min() > 0


def test_a_child_fires_only_with_its_parent_and_never_with_a_sibling(world: World, drawn):
    fired = drawn[1] != 0
    children = (world.parent_G >= 0).nonzero().flatten()
    assert len(children) == 4 * 3 + 4 * 9
    assert not (fired[:, children] & ~fired[:, world.parent_G[children]]).any()
    for parent in world.parent_G[children].unique():
        assert fired[:, world.parent_G == parent].sum(1).max() == 1
    free = (fired[:, -1] & fired[:, -2]).sum()  # features of no tree do meet
    assert free > 0


def test_a_childs_value_follows_its_parents(world: World, drawn):
    children = (world.parent_G >= 0).nonzero().flatten()
    varied = world.sd_G[world.parent_G[children]] / world.sd_G[children]
    child = int(children[varied.argmax()])
    pair = drawn[1][:, [int(world.parent_G[child]), child]].abs()
    assert torch.corrcoef(pair[pair[:, 1] != 0].T)[0, 1] > 0.8


def test_activations_are_the_features_directions_plus_bias_and_noise():
    quiet = World(replace(SPEC, noise=0.0))
    x, truth = quiet.sample(100)
    torch.testing.assert_close(x, truth @ quiet.directions_GD + quiet.bias_D)
    noisy = World(replace(SPEC, noise=0.5))
    x, truth = noisy.sample(2000)
    assert (x - truth @ noisy.directions_GD - noisy.bias_D).std().item() == pytest.approx(
        0.5, rel=0.02
    )


def test_bipolar_features_take_both_signs_and_the_others_one(world: World, drawn):
    negative = (drawn[1] < 0).any(0)
    assert torch.equal(negative, world.bipolar_G) and 0 < world.bipolar_G.sum() < 120


def test_correlation_makes_features_fire_together_and_leaves_their_chances():
    def excess(share: float) -> float:
        world = World(replace(SPEC, correlation=share, rank=1, firing=(0.3, 0.2)))
        fired = (world.sample(20_000)[1][:, -40:] != 0).double()
        together = torch.corrcoef(fired.T).fill_diagonal_(0)
        return float(together.abs().mean())

    assert excess(0.6) > 10 * excess(0.0)


def test_separation_lowers_the_overlap_of_directions():
    def overlap(spec: Spec) -> float:
        W = World(spec).directions_GD
        torch.testing.assert_close(W.norm(dim=1), torch.ones(len(W)))
        return float((W @ W.T).fill_diagonal_(0).square().sum() / (len(W) * (len(W) - 1)))

    bound = (120 - 32) / (32 * 119)  # no 120 unit rows of width 32 overlap less (Welch 1974)
    assert (
        overlap(SPEC) == pytest.approx(bound, rel=0.05)
        and overlap(replace(SPEC, separation=0)) > 1.2 * bound
    )
    assert overlap(SMALL) < 1e-6


def test_a_world_is_its_spec_and_shares_nothing_with_an_sae_of_its_seed():
    assert torch.equal(World(SPEC).directions_GD, World(SPEC).directions_GD)
    assert not torch.equal(World(SPEC).directions_GD, World(replace(SPEC, seed=1)).directions_GD)
    world, sae = World(replace(SPEC, separation=0)), SAE(32, 120, Choice(3), seed=SPEC.seed)
    assert (world.directions_GD * sae.W_dec).sum(1).abs().mean() < 0.3
    plain = torch.nn.functional.normalize(
        torch.randn(120, 32, generator=torch.Generator().manual_seed(0)), dim=1
    )
    assert (plain * sae.W_dec).sum(
        1
    ).mean() > 0.99  # what a world drawn from its bare seed would have had
    one, other = (torch.rand(3, generator=stream("x", seed)) for seed in (5, 5 + (1 << 32)))
    assert not torch.equal(one, other)  # torch alone would drop the high bits


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"n_features": 40}, r"hold 52 features, more than n_features=40"),
        ({"firing": (0.1, 0.4)}, r"firing=\(0\.1, 0\.4\) must be two chances between 0 and 1"),
        ({"bipolar": 2.0}, r"bipolar=2\.0 are shares: between 0 and 1"),
    ],
)
def test_an_impossible_world_is_refused(changes: dict, message: str):
    with pytest.raises(UsageError, match=message):
        World(replace(SPEC, **changes))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Cache:
    """A small synthetic cache in float32."""
    return Cache(
        synthetic_cache.write(
            SMALL, tmp_path_factory.mktemp("world") / "cache", 40_000, context=128, dtype="float32"
        )
    )


def test_the_cache_holds_the_samples_and_knows_their_truth(cache: Cache):
    cache.verify()
    assert cache.n_tokens() + cache.n_tokens("held_out") == -(-40_000 // 128) * 127
    world = synthetic_cache.world_of(cache)
    assert world.spec == SMALL
    chunk = next(iter(cache.contexts("synthetic", "held_out")))
    truth = synthetic_cache.truth(world, cache, chunk.tokens)
    error = chunk.acts - truth @ world.directions_GD - world.bias_D
    assert error.std().item() == pytest.approx(SMALL.noise, rel=0.1)
    wrong = synthetic_cache.truth(world, cache, chunk.tokens + 128)  # the next context's
    assert (chunk.acts - wrong @ world.directions_GD - world.bias_D).std() > 10 * SMALL.noise


def test_a_finished_cache_is_found_and_one_of_another_world_refused(cache: Cache):
    assert (
        synthetic_cache.write(SMALL, cache.path, 40_000, context=128, dtype="float32") == cache.path
    )
    with pytest.raises(UsageError, match="holds a cache of other settings"):
        synthetic_cache.write(
            replace(SMALL, seed=1), cache.path, 40_000, context=128, dtype="float32"
        )


def test_a_cache_without_a_held_out_context_or_of_a_strange_dtype_is_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="gave no held-out context: use more"):
        synthetic_cache.write(SMALL, tmp_path / "short", 256, context=128)
    with pytest.raises(UsageError, match="no dtype 'float8'"):
        synthetic_cache.write(SMALL, tmp_path / "odd", 256, dtype="float8")


def test_a_models_cache_has_no_truth(tiny_cache: Path):
    with pytest.raises(UsageError, match="not of a synthetic world"):
        synthetic_cache.world_of(Cache(tiny_cache))
