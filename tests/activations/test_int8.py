"""int8 caches: what is stored, what every reader gets of it, and what is refused."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from saelab import models, opening
from saelab.activations import Cache, Contexts
from saelab.activations.from_arrays import from_arrays
from saelab.activations.from_text import from_text
from saelab.activations.stored import Stored, round_trip
from saelab.errors import FailedRun, UsageError
from saelab.models import running
from tests.conftest import HOOK, SECOND_HOOK, make_cache

LARGEST = torch.finfo(torch.float32).max
ROWS = torch.tensor(
    [
        [1.0, -2.0, 0.4],
        [0.0, 0.0, 0.0],  # zeros
        [1e-45, -3e-45, 0.0],  # no step that float32 holds
        [3000.0, 1.0, -11.0],  # an outlier
        [LARGEST, -LARGEST, 1e38],
        [5e-324, 1e-39, -2e-39],
    ]
)


@pytest.fixture(scope="module")
def pair(tiny_model: Path, tiny_corpus: Path, tiny_cache: Path, tmp_path_factory):
    """The float32 cache and the same one in int8."""
    out = tmp_path_factory.mktemp("int8") / "c"
    return Cache(tiny_cache), Cache(make_cache(tiny_model, tiny_corpus, out, dtype="int8"))


def test_the_largest_magnitude_of_a_token_is_127_and_the_others_are_rounded_to_the_nearest():
    found = Stored.of(ROWS, "int8")
    assert found.values[:4].tolist() == [[64, -127, 25], [0, 0, 0], [0, 0, 0], [127, 0, 0]]
    assert found.scale is not None and found.scale.dtype == torch.float32
    back = found.float()
    assert bool(back.isfinite().all())
    error = (back.double() - ROWS.double()).abs() / found.scale.double().clamp_min(1e-45)
    assert float(error[found.scale[:, 0] > 0].max()) <= 0.5001


def test_rounding_down_or_a_scale_of_the_whole_tensor_would_be_caught():
    drawn = torch.randn(200, 64, generator=torch.Generator().manual_seed(0))
    x = drawn * torch.logspace(-3, 3, 200)[:, None]

    def relative(back: torch.Tensor) -> float:
        return float(((back - x).square().sum(1) / x.square().sum(1)).max())

    truncated = Stored.of(x, "int8")
    assert truncated.scale is not None
    down = (x / truncated.scale).trunc() * truncated.scale
    of_all = round_trip(x.flatten(), "int8").view_as(x)
    right = relative(round_trip(x, "int8"))
    # A step is at most a 127th of the largest: the error a 12th of its square, D times.
    bound = ((x.abs().amax(1) / 127) ** 2 / 12 * 64 / x.square().sum(1)).max()
    assert right < 1.6 * float(bound)
    assert relative(down) > 3 * right and relative(of_all) > 100 * right


def test_dividing_by_127_alone_would_overflow():
    assert not bool(((ROWS[4] / 127).max() * 127).isfinite())


def test_a_shard_holds_int8_with_a_scale_for_each_position(pair):
    _, cache = pair
    shard = load_file(cache.path / cache.manifest["shards"][0]["file"])
    assert shard[HOOK].dtype == torch.int8 and shard[HOOK].shape[1:] == (32, 32)
    assert shard[f"{HOOK}.scale"].shape == (*shard[HOOK].shape[:2], 1)
    n_positions = sum(entry["contexts"] for entry in cache.manifest["shards"]) * cache.context
    acts = sum(entry["bytes"] for entry in cache.manifest["shards"])
    assert cache.plan.bytes_per_position == 2 * (32 + 4)
    assert 0 <= acts - n_positions * (2 * (32 + 4) + 8) < 2000 * len(cache.manifest["shards"])


def test_every_reader_gets_the_same_float32(pair):
    exact, cache = pair
    for mine, theirs in zip(cache.contexts(HOOK), exact.contexts(HOOK), strict=True):
        assert mine.acts.dtype == torch.float32
        assert torch.equal(mine.acts, round_trip(theirs.acts, "int8"))
    for hooks in (HOOK, [HOOK, SECOND_HOOK]):
        mine, theirs = (next(one.batches(hooks, 700, seed=2, start=3)) for one in (cache, exact))
        for name in [HOOK, SECOND_HOOK]:
            x, y = (one if isinstance(hooks, str) else one[name] for one in (mine, theirs))
            assert torch.equal(x, round_trip(y, "int8"))
            if isinstance(hooks, str):
                break
    numbers = torch.arange(60, 70)  # of two shards
    taken = (torch.cat([*one.take(HOOK, numbers)]) for one in (cache, exact))
    assert torch.equal(next(taken), round_trip(next(taken), "int8"))
    rows = torch.cat([tokens.x for tokens in cache.counted(HOOK)]).double()
    moments = cache.moments(HOOK)
    torch.testing.assert_close(moments.sum, rows.sum(0), rtol=1e-6, atol=1e-4)
    torch.testing.assert_close(moments.second, rows.T @ rows, rtol=1e-5, atol=1e-2)
    original = exact.moments(HOOK).second  # of what was there before it was rounded
    assert float((moments.second - original).abs().max()) > 0.1


def test_gradients_and_masks_are_kept_in_int8_too(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
):
    options = {"n_tokens": 4_000, "gradients": True, "hooks": [HOOK], "pack": "one-per-context"}
    made = (
        Cache(make_cache(tiny_model, tiny_corpus, tmp_path / dtype, dtype=dtype, **options))
        for dtype in ("int8", "float32")
    )
    cache, exact = made
    name = f"{HOOK}.grad"
    mine, theirs = (next(one.batches([name, HOOK], 200, seed=1)) for one in (cache, exact))
    assert torch.equal(mine[name], round_trip(theirs[name], "int8"))
    chunk = next(cache.contexts(HOOK, gradients=True))
    assert chunk.acts.abs().sum() > 0 and not chunk.counted.all()


def test_ones_own_arrays_are_kept_in_int8_unless_a_name_is_taken(tmp_path: Path):
    x = torch.randn(600, 16, generator=torch.Generator().manual_seed(0))
    cache = Cache.write(tmp_path / "c", from_arrays(x, context=20, dtype="int8"))
    every = torch.cat([t.x for s in ("train", "held_out") for t in cache.counted("acts", s)])
    assert set(map(tuple, every.tolist())) == set(map(tuple, round_trip(x, "int8").tolist()))
    with pytest.raises(UsageError, match=r"int8 keeps its scales in acts\.scale, which is a hook"):
        from_arrays({"acts": x, "acts.scale": x}, context=20, dtype="int8")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_refused_in_int8_too(bad: float):
    acts = torch.zeros(2, 3, 4)
    acts[1, 2, 3] = bad
    into = Stored.empty((2, 3, 4), "int8")
    into.round(acts)
    assert not into.is_finite
    acts[1, 2, 3] = LARGEST
    into.round(acts)
    assert into.is_finite


def test_a_capture_of_what_is_not_finite_stops(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    source = from_text(models.load(tiny_model), str(tiny_corpus), [HOOK], 8_000, dtype="int8")
    read = running.read
    monkeypatch.setattr(
        running, "read", lambda *args: {name: acts / 0 for name, acts in read(*args).items()}
    )
    with pytest.raises(FailedRun, match=r"activations at .* are not finite"):
        Cache.write(tmp_path / "c", source)


def test_the_right_model_is_recognised_behind_a_huge_dimension(monkeypatch: pytest.MonkeyPatch):
    """As GPT-2's at position 0: int8 keeps little else of such a token."""
    acts_CTD = 8 * torch.randn(1, 1, 512, generator=torch.Generator().manual_seed(0))
    acts_CTD[..., 7] = 3000.0
    zero_CT = torch.zeros(1, 1, dtype=torch.int64)
    chunk = Contexts(zero_CT, round_trip(acts_CTD, "int8"), zero_CT, zero_CT.bool())
    monkeypatch.setattr(running, "read", lambda *_: {HOOK: acts_CTD * (1 + 1e-6)})

    def check(dtype: str) -> None:
        cache = SimpleNamespace(
            path="c",
            plan=SimpleNamespace(dtype=dtype),
            whole=lambda hook: None,
            contexts=lambda hook, split: iter([chunk]),
        )
        opening._check_activations(None, cache, HOOK)

    check("int8")
    with pytest.raises(UsageError, match="differ from those in c by"):
        check("float32")  # as if the cache had not rounded
