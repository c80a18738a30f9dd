"""Reproductions: intervals and verdicts by hand, values read off at equal L0, measures on SAEs
whose results are known."""

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from saelab import SAE
from saelab.activations import Cache
from saelab.errors import UsageError
from saelab.sparsify import Choice
from saelab.statistics import Estimate
from tests.conftest import HOOK
from training import Config, recipes
from training.reproduce import PAPERS, Settings, abstopk, claims, compare, data, measure, steering
from training.reproduce.claims import judge, seeds_claim, within


@pytest.mark.parametrize(
    ("low", "high", "bound", "holds"),
    [
        (0.1, 0.2, {"above": 0.0}, True),
        (-0.2, -0.1, {"above": 0.0}, False),
        (-0.1, 0.1, {"above": 0.0}, None),
        (0.0, 0.0, {"above": 0.0}, False),
        (-0.2, -0.1, {"below": 0.0}, True),
        (0.1, 0.2, {"below": 0.0}, False),
        (-0.1, 0.1, {"below": 0.0}, None),
        (None, None, {"below": 0.0}, None),
    ],
)
def test_a_claim_holds_only_where_the_whole_interval_does(low, high, bound, holds):
    assert judge(Estimate(0.0, low, high), **bound) is holds


def test_an_interval_lies_within_two_bounds_or_beyond_one_of_them_or_is_undecided():
    assert within(Estimate(0.5, 0.45, 0.55), 0.4, 0.6) is True
    assert within(Estimate(0.7, 0.65, 0.75), 0.4, 0.6) is False
    assert within(Estimate(0.6, 0.55, 0.65), 0.4, 0.6) is None
    assert within(Estimate(0.5), 0.4, 0.6) is None


def test_judging_needs_one_bound():
    with pytest.raises(ValueError, match="one bound"):
        judge(Estimate(0.5, 0.0, 1.0))


def test_a_comparison_is_undecided_before_five_seeds():
    assert seeds_claim("c", "t", [-1.0, -1.1, -0.9, -1.0], below=0.0).holds is None
    assert seeds_claim("c", "t", [-1.0, -1.1, -0.9, -1.0, -1.0], below=0.0).holds is True
    assert seeds_claim("c", "t", [1.0, 1.1, 0.9, 1.0, 1.0], below=0.0).holds is False
    assert seeds_claim("c", "t", [1.0, -1.0, 1.0, -1.0, 0.5], below=0.0).holds is None


def test_values_are_read_off_on_a_line_in_log_l0():
    plan = compare.QUICK._replace(ks=(8, 32), target=16.0)
    assert compare.read_off(plan, [8.0, 32.0, 4.0, 64.0], [0.4, 0.2, 0.6, 0.2]) == pytest.approx(
        [0.3, 0.4]
    )
    off = compare.read_off(plan, [8.0, 14.0, 2.0, 4.0], [0.4, 0.2, 0.6, 0.2])
    assert not np.isnan(off[0]) and np.isnan(off[1]), (
        "read off near the measured L0s, never far from them"
    )


def identity_sae(width: int, k: int, signed: bool = False) -> SAE:
    """An SAE whose features are the axes."""
    sae = SAE(width, width, Choice(k, signed=signed))
    for weight in (sae.W_enc, sae.W_dec):
        weight.data.copy_(torch.eye(width))
    return sae


def test_quality_by_hand():
    x = torch.tensor([[3.0, 1.0, 0.0], [0.0, 2.0, 0.0], [-2.0, 0.0, 0.0]])
    found = measure.quality(identity_sae(3, 1), x)  # x_hat: 3 0 0, 0 2 0, nothing
    spread = (9 + 0 + 4 - 1 / 3) + (
        1 + 4 - 9 / 3
    )  # sums of squares less n times the squared means 1/3 and 1
    assert found.fvu == pytest.approx((1 + 4) / spread)
    assert found.l0 == pytest.approx(2 / 3) and found.dead == pytest.approx(1 / 3)


def test_the_added_loss_is_zero_for_the_identity_and_large_for_nothing(
    tiny_model: Path, tiny_cache: Path
):
    from saelab import models

    model, cache = models.load(tiny_model), Cache(tiny_cache)
    hook = cache.resolve(HOOK)
    whole, nothing = identity_sae(32, 32, signed=True), SAE(32, 32, Choice(1))
    nothing.W_dec.data.zero_()
    added = measure.added_loss([whole, nothing], cache, model, hook, 600)
    assert added[0] == pytest.approx(0, abs=1e-5) and added[1] > 0.01
    chunks = list(cache.contexts(hook, "held_out"))
    last = SimpleNamespace(contexts=lambda *_: [chunks[-1].part(slice(-1, None))])
    others = sum(int(chunk.counted.sum()) for chunk in chunks) - int(chunks[-1].counted[-1].sum())
    lots = 10**9
    behind = measure.added_loss([nothing], cache, model, hook, lots, behind=others)
    assert behind == pytest.approx(measure.added_loss([nothing], last, model, hook, lots), rel=1e-4)
    every = measure.added_loss([nothing], cache, model, hook, lots)
    assert behind != pytest.approx(every, rel=1e-3), "the twin: all contexts are read"


def test_a_bigger_push_moves_the_prediction_further_and_none_not_at_all(
    tiny_model: Path, tiny_cache: Path
):
    from saelab import models

    model, cache = models.load(tiny_model), Cache(tiny_cache)
    rows, hook = torch.eye(32)[:5], cache.resolve(HOOK)
    tokens = steering.contexts(cache, 3, 0)
    none, small, large = (
        steering.effects(rows, model, hook, tokens, norm) for norm in (0.0, 0.1, 3.0)
    )
    assert tokens.shape == (3, steering.LENGTH)
    assert none == pytest.approx(0, abs=1e-6) and (small > 0).all() and (large > 10 * small).all()
    logits = model.run_with_hooks(
        tokens[:1],
        return_type="logits",
        fwd_hooks=[(hook, lambda acts, hook: _pushed(acts, rows[2]))],
    )
    clean, steered = (z[0, -1].log_softmax(-1) for z in (model(tokens[:1]), logits))
    one = steering.effects(rows[2:3], model, hook, tokens[:1], 3.0)
    assert one[0] == pytest.approx(float((clean.exp() * (clean - steered)).sum()), rel=1e-3)


def _pushed(acts: torch.Tensor, row: torch.Tensor) -> torch.Tensor:
    changed = acts.clone()
    changed[:, -1] += 3.0 * row
    return changed


def test_superiority_is_the_share_of_pairs_won():
    assert steering.superiority(np.array([3.0, 1.0]), np.array([2.0, 1.0])) == (1 + 1 + 0 + 0.5) / 4


def test_only_a_signed_feature_captures_both_sides_of_an_axis():
    draw = torch.Generator().manual_seed(0)
    truth = torch.randn(400, 4, generator=draw) * (torch.rand(400, 4, generator=draw) < 0.3)
    axes = torch.eye(4)
    assert abstopk.axis_f1(identity_sae(4, 4, signed=True), truth, truth, axes) == pytest.approx(
        1.0
    )
    one_sided = abstopk.axis_f1(identity_sae(4, 4), truth, truth, axes)
    assert 0.5 < one_sided <= 0.72
    twice = SAE(4, 8, Choice(4))
    for weight in (twice.W_enc, twice.W_dec):
        weight.data.copy_(torch.cat([axes, -axes]))
    assert one_sided <= abstopk.axis_f1(twice, truth, truth, axes) <= 0.8, (
        "two features for an axis, neither sees both sides"
    )


def test_runs_are_trained_once_and_named_by_what_decides_them(tiny_cache: Path, tmp_path: Path):
    settings = Settings(work=tmp_path)
    config = Config(
        cache=str(tiny_cache), hook=HOOK, features=64, k=4, tokens=2_048, batch=256, lr=0.003
    )
    other = Config(
        cache=str(tiny_cache), hook=HOOK, features=64, k=4, tokens=2_048, batch=256, lr=0.001
    )
    (folder,) = data.runs(settings, [config])
    stamp = (folder / "sae" / "sae.safetensors").stat().st_mtime_ns
    both = data.runs(settings, [config, other])
    assert both[0] == folder != both[1]
    assert (folder / "sae" / "sae.safetensors").stat().st_mtime_ns == stamp
    (folder / "sae" / "sae.json").unlink()  # a killed run: started afresh
    assert data.runs(settings, [config]) == [folder] and SAE.load(folder).n_features == 64


def test_the_methods_of_every_recipe_share_size_and_tokens():
    found = [recipes.read(name) for name in ("mutual-feature-choice", "g-sae", "abstopk")]
    assert len({(c.features, c.tokens, c.batch, c.k, c.calibration) for c in found}) == 1
    assert [c.sparsify for c in found] == ["feature-choice", "g-sae", "abstopk"]
    base = compare.baseline(found[0])
    assert (
        base.sparsify == "topk"
        and base.aux_zipf == base.mutual == 0
        and base.tokens == found[0].tokens
    )
    assert all(compare.baseline(c) == base for c in found), (
        "TopK's runs are trained once for all papers"
    )


def test_an_unknown_paper_is_refused():
    with pytest.raises(
        UsageError, match="no paper 'sparse-things'; there are mutual-feature-choice"
    ):
        claims("sparse-things", Settings())
    assert set(PAPERS) >= {"mutual-feature-choice", "g-sae", "abstopk"}
