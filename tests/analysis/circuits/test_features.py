"""Feature circuits: effects against patching, edges against finite differences, circuits against
the ablated model."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import frozen
from saelab.analysis.circuits import measure
from saelab.analysis.circuits.features import curve, edges, effects
from saelab.analysis.circuits.features.circuit import feature_circuit, head_scores
from saelab.analysis.parts import sites, split
from saelab.code import Code
from saelab.errors import UsageError
from saelab.kernels import sddmm
from saelab.models import running
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, random_task, transcoder

TASK, OTHER = random_task(), random_task(seed=1)
NOTHING = effects.Nodes(*torch.zeros(3, 0, dtype=torch.int64), torch.zeros(0))
SAES = [dictionary(RESIDUAL), dictionary(Z, seed=1), transcoder(1, seed=2)]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def places(model):
    return sites(model, SAES)


def metric(model, replace: dict[str, torch.Tensor]) -> torch.Tensor:
    """The metric per prompt with activations given."""
    with torch.no_grad():
        found = frozen.run(model, frozen.Frozen(TASK.clean, {}), replace, [frozen.LOGITS])
    return measure(TASK, found[frozen.LOGITS])


def test_the_difference_of_codes_is_that_of_their_dense_forms():
    a, b = torch.randn(2, 5, 7, generator=torch.Generator().manual_seed(0))
    a, b = a * (a > 0.5), b * (b > 0.2)
    found = effects.subtract(Code.from_mask(a, a != 0), Code.from_mask(b, b != 0))
    assert torch.equal(found.to_dense(), a - b) and len(found.features) == int(
        ((a != 0) | (b != 0)).sum()
    )


def test_where_the_metric_is_linear_every_effect_is_that_of_patching(model):
    sae = dictionary("unembed.hook_in")
    places = sites(model, [sae])
    (change,), (found,) = effects.effects(model, TASK, places, steps=1)
    ((_, x_PTD),) = effects.record(model, TASK.clean, places)
    before_P = metric(model, {})
    for pair in range(0, len(found.code.values), 25):
        prompt, position = divmod(int(found.code.tokens[pair]), TASK.clean.shape[1])
        moved = x_PTD.clone()
        moved[prompt, position] += (
            change.code.values[pair] * sae.W_dec.detach()[found.code.features[pair]]
        )
        patched = float((metric(model, {"unembed.hook_in": moved}) - before_P)[prompt])
        assert float(found.code.values[pair]) == pytest.approx(patched, abs=2e-5)


def incompleteness(model, places, steps: int) -> list[float]:
    """For each site how far the effects' sum is from the change that patching the whole site
    makes."""
    missing = []
    corrupted = effects.record(model, TASK.corrupted, places)
    _, found = effects.effects(model, TASK, places, steps)
    for site, one, (_, after) in zip(places, found, corrupted, strict=True):
        whole = float((metric(model, {site.write: after}) - metric(model, {})).sum())
        missing.append(abs(float(one.code.values.sum() + one.error.sum()) - whole) / abs(whole))
    return missing


def test_effects_add_up_to_the_patched_site_with_the_steps(model, places):
    coarse, fine = incompleteness(model, places, 4), incompleteness(model, places, 32)
    assert max(fine) < 0.01 and sum(coarse) > 10 * sum(fine)


def test_ranks_by_position_add_up_to_ranks_without(model, places):
    _, found = effects.effects(model, TASK, places, 2)
    apart, together = effects.rank(found, by_position=True), effects.rank(found)
    keys = apart.site * 1000 + apart.feature
    for site, position, feature, effect in zip(*together.top(30), strict=True):
        assert position == -1
        assert float(apart.effect[keys == site * 1000 + feature].sum()) == pytest.approx(
            float(effect), abs=1e-5
        )
    assert (together.effect.abs().diff() <= 0).all() and (
        together.feature == effects.ERROR
    ).sum() == len(places)
    total = sum(float(one.code.values.sum() + one.error.sum()) for one in found) / len(TASK.clean)
    assert float(together.effect.sum()) == pytest.approx(total, abs=1e-4)


def test_tracing_leaves_the_output_as_it_was(model, places):
    cut = edges.trace(model, TASK.clean, places)
    assert torch.equal(cut.logits.detach(), running.logits(model, TASK.clean))
    for site, leaf, code, error in zip(places, cut.leaves, cut.codes, cut.errors, strict=True):
        decoded = (code.to_dense() @ site.sae.W_dec).view_as(error).detach()
        torch.testing.assert_close(
            (decoded + site.sae.b_dec + error).detach(), leaf.detach() + site.sae.b_dec
        )


def test_without_its_error_a_trace_would_change_the_output(model, places):
    ((_, x_PTD),) = effects.record(model, TASK.clean, places[:1])
    with torch.no_grad():
        assert (
            float((metric(model, {RESIDUAL: places[0].sae(x_PTD)}) - metric(model, {})).abs().max())
            > 0.01
        )


def test_an_edge_is_the_direct_effect_that_finite_differences_find(model, places):
    changes, found = effects.effects(model, TASK, places, 4)
    nodes = effects.rank(found).top(60)
    table = edges.edges(model, TASK, places, nodes, changes, found)
    acts = effects.record(model, TASK.clean, places)
    up, down = (
        next(i for i in range(60) if nodes.site[i] == s and nodes.feature[i] >= 0) for s in (0, 1)
    )
    f_up, f_down, step = int(nodes.feature[up]), int(nodes.feature[down]), 1e-2

    moved_PTD = torch.zeros_like(acts[0][1]).flatten(0, 1)
    mine = changes[0].code.features == f_up
    moved_PTD[changes[0].code.tokens[mine]] = (
        changes[0].code.values[mine][:, None] * places[0].sae.W_dec.detach()[f_up]
    )

    def downstream(share: float) -> tuple[float, float]:
        """The downstream feature's activation times the effect of a unit of it, and the metric with
        everything else held."""
        given = {RESIDUAL: acts[0][1] + share * moved_PTD.view_as(acts[0][1])}
        with torch.no_grad():
            z_PTD = frozen.run(model, frozen.Frozen(TASK.clean, {}), given, [Z])[Z]
            values_PT = places[1].sae.encode(z_PTD).to_dense()[:, f_down].view(6, 7)
        values_PT[:, 0] = 0
        slope_PT = found[1].gradient @ places[1].sae.W_dec.detach()[f_down]
        held = given | {
            site.write: write for site, (_, write) in zip(places[1:], acts[1:], strict=True)
        }
        return float((values_PT * slope_PT).sum()), float(metric(model, held).sum())

    (high, metric_high), (low, metric_low) = downstream(step), downstream(-step)
    assert abs(float(table[down, up])) > 1e-5
    assert float(table[down, up]) == pytest.approx((high - low) / (2 * step) / 6, rel=0.03)
    assert float(table[-1, up]) == pytest.approx(
        (metric_high - metric_low) / (2 * step) / 6, rel=0.03, abs=1e-4
    )


def test_what_passes_through_residual_attention_and_mlp_adds_up_to_each_effect(model):
    """The chain rule over all nodes of three kinds of place at once: what a node passes straight to
    later nodes and to the metric is all of its effect. Without the error nodes some is missing."""
    mlp = dictionary("blocks.1.hook_mlp_out", seed=2)
    places = sites(model, [dictionary(RESIDUAL), dictionary(Z, seed=1), mlp])
    clean, corrupted = (effects.record(model, t, places) for t in (TASK.clean, TASK.corrupted))
    changes, found = [], []
    for site, before, after in zip(places, clean, corrupted, strict=True):
        moved = effects.change(split(site.sae, *before), split(site.sae, *after))
        slope_PTD = effects.path_gradient(model, TASK, site.write, before[1], before[1], 1)
        slopes_N = sddmm(slope_PTD.flatten(0, 1), site.sae.W_dec.detach(), moved.code)
        features = moved.code.with_values(moved.code.values * slopes_N)
        changes.append(moved)
        found.append(effects.Effects(features, (slope_PTD * moved.error).sum(2), slope_PTD))
    nodes = effects.rank(found)
    assert set(nodes.site.tolist()) == {0, 1, 2}
    table = edges.edges(model, TASK, places, nodes, changes, found)
    largest = float(nodes.effect.abs().max())
    torch.testing.assert_close(table.sum(0), nodes.effect, rtol=1e-3, atol=1e-4 * largest)
    kept = torch.cat([nodes.feature != effects.ERROR, torch.tensor([True])])
    assert float((table[kept].sum(0) - nodes.effect).abs().max()) > 0.05 * largest


def test_nothing_acts_backwards(model, places):
    changes, found = effects.effects(model, TASK, places, 2)
    nodes = effects.rank(found, by_position=True).top(60)
    table = edges.edges(model, TASK, places, nodes, changes, found)[:-1]
    later = (nodes.site[None] >= nodes.site[:, None]) | (
        nodes.position[None] > nodes.position[:, None]
    )
    assert not table[later].any() and table[~later].any()


def test_everything_kept_is_the_model_and_nothing_kept_is_the_mean(model, places):
    averages, none = curve.means(model, TASK, places), curve.masks(NOTHING, places, 7)
    torch.testing.assert_close(
        curve.ablated(model, TASK, places, averages, [~m for m in none]), metric(model, {})
    )
    means = {}
    for site, (_, acts), (_, clean) in zip(
        places,
        effects.record(model, TASK.corrupted, places),
        effects.record(model, TASK.clean, places),
        strict=True,
    ):
        means[site.write] = acts.mean(0).expand_as(acts).clone()
        means[site.write][:, 0] = clean[:, 0]
    torch.testing.assert_close(
        curve.ablated(model, TASK, places, averages, none),
        metric(model, means),
        rtol=1e-3,
        atol=1e-4,
    )


def test_one_kept_feature_is_the_only_one_that_moves(model, places):
    averages = curve.means(model, TASK, places[:1])
    sae, feature = places[0].sae, int(averages[0].features[3].argmax())
    one = effects.Nodes(*(torch.tensor([value]) for value in (0, 3, feature, 1.0)))
    kept = curve.masks(one, places[:1], 7)
    ((_, clean),) = effects.record(model, TASK.clean, places[:1])
    ((_, corrupted),) = effects.record(model, TASK.corrupted, places[:1])
    wanted = corrupted.mean(0).expand_as(clean).clone()
    wanted[:, 0] = clean[:, 0]
    with torch.no_grad():
        value_P = sae.encode(clean[:, 3]).to_dense()[:, feature]
    wanted[:, 3] += (value_P - averages[0].features[3, feature])[:, None] * sae.W_dec.detach()[
        feature
    ]
    found = curve.ablated(model, TASK, places[:1], averages, kept)
    torch.testing.assert_close(found, metric(model, {RESIDUAL: wanted}), rtol=1e-3, atol=1e-4)


def test_the_whole_circuit_is_faithful_and_its_complement_complete(model):
    found = feature_circuit(model, TASK, OTHER, SAES, n_edge_nodes=10, sizes=[5, 20], steps=2)
    assert found.hooks == [RESIDUAL, Z, "blocks.1.mlp.hook_out"] and found.edges.shape == (11, 10)
    none, *_, everything = found.curve.points
    assert none.faithfulness[:3] == (0, 0, 0) and none.completeness[:3] == (1, 1, 1)
    assert everything.size == len(found.nodes.effect) and abs(everything.faithfulness[0] - 1) < abs(
        none.faithfulness[0] - 1
    )
    assert [point.size for point in found.curve.points] == [0, 5, 20, everything.size]


def test_early_sites_can_stay_whole(model, places):
    found = curve.curve(model, TASK, places, NOTHING, [0], start=1)
    averages = curve.means(model, TASK, places)
    by_hand = curve.ablated(
        model, TASK, places[1:], averages[1:], curve.masks(NOTHING, places, 7)[1:]
    )
    assert found.metric_empty[0] == pytest.approx(float(by_hand.mean()), rel=1e-5)


def test_a_metric_that_ablation_leaves_alone_is_no_basis(model, places):
    same = TASK._replace(wrong=TASK.right)
    with pytest.raises(
        UsageError,
        match=r"metric is 0\.000 and 0\.000 with every node mean-ablated: too close together",
    ):
        curve.curve(model, same, places, NOTHING, [0])


def test_nodes_by_position_need_one_length(model):
    with pytest.raises(UsageError, match="need prompts of one length: these have 7 and 9 tokens"):
        feature_circuit(model, TASK, random_task(length=9), SAES, by_position=True)


def test_head_scores_are_the_effects_of_the_head_s_slice(model):
    places = sites(model, [dictionary("blocks.0.attn.o.hook_in"), dictionary(Z, seed=1)])
    changes, found = effects.effects(model, TASK, places, 2)
    scores, expected = head_scores(model, places, changes, found), torch.zeros(4)
    assert scores is not None and scores.all()
    for feature in changes[1].code.features.unique().tolist():
        mine = changes[1].code.features == feature
        rows = (
            found[1].gradient.flatten(0, 1)[changes[1].code.tokens[mine]]
            * places[1].sae.W_dec.detach()[feature]
        )
        expected += (rows.view(-1, 4, 8).sum(2) * changes[1].code.values[mine][:, None]).sum(
            0
        ).abs() / 6
    torch.testing.assert_close(scores[1], expected)
    assert head_scores(model, places[1:], changes[1:], found[1:]) is None
