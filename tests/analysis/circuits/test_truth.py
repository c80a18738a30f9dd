"""Ablation replaces what it says and nothing else; effects, intervals and levels are right on
numbers made by hand."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis.circuits.heads import ablation, truth
from saelab.analysis.circuits.heads.ablation import Baseline
from saelab.errors import UsageError
from saelab.tasks import Task, measure, task

GENERATOR = torch.Generator().manual_seed(0)


@pytest.fixture(scope="module")
def tiny(tiny_model: Path):
    """The tiny model: two layers of four heads."""
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def toy() -> Task:
    """150 prompts of 20 random tokens that end alike, in two templates, twice as many as go through
    at once."""
    clean, corrupted = torch.randint(1, 257, (2, 150, 20), generator=GENERATOR)
    corrupted[:, -1] = clean[:, -1]
    right, wrong = torch.randint(0, 257, (2, 150, 1), generator=GENERATOR)
    return Task(
        "toy", clean, corrupted, right, wrong, "logit_difference", {}, {"template": ["a", "b"] * 75}
    )


def heads(*which: tuple[int, int]) -> torch.Tensor:
    """A mask [2, 4] of these heads."""
    mask = torch.zeros(2, 4, dtype=torch.bool)
    for layer, head in which:
        mask[layer, head] = True
    return mask


def test_replacing_nothing_changes_nothing(tiny, toy: Task):
    given = ablation.stand_ins(tiny, toy)
    plain = measure(toy, tiny(toy.clean))
    nothing = ablation.run(tiny, toy, given, heads(), torch.zeros(2, dtype=torch.bool))
    torch.testing.assert_close(ablation.run(tiny, toy, given), plain)
    torch.testing.assert_close(nothing, plain)
    assert len(ablation.batches(toy)) == 2


def test_with_all_heads_from_the_twin_the_model_sees_only_the_twin(tiny, toy: Task):
    given, corrupted = ablation.stand_ins(tiny, toy), measure(toy, tiny(toy.corrupted))
    torch.testing.assert_close(ablation.run(tiny, toy, given, ~heads()), corrupted)
    other_end = toy._replace(
        corrupted=toy.corrupted.roll(1, 1)
    )  # then the last token's own embedding still differs
    given = ablation.stand_ins(tiny, other_end)
    assert (
        ablation.run(tiny, other_end, given, ~heads()) - measure(toy, tiny(other_end.corrupted))
    ).abs().mean() > 0.1


@pytest.mark.parametrize("kind", ablation.KINDS)
def test_one_head_is_replaced_as_weights_say(tiny, toy: Task, kind: ablation.Kind):
    """Against the model's own parts: the last layer's MLP and norms applied to a residual stream
    put together by hand."""
    given = ablation.stand_ins(tiny, toy, kind)
    with models.enabled(tiny, use_attn_result=True):
        clean, twin = (tiny.run_with_cache(tokens)[1] for tokens in (toy.clean, toy.corrupted))
    hook = "blocks.1.attn.hook_result"
    sent = twin[hook][:, :, 2]
    means = torch.stack([sent[0::2].mean(0), sent[1::2].mean(0)]).repeat(75, 1, 1)
    sent = {"resample": sent, "mean": means, "zero": torch.zeros_like(sent)}[kind]
    middle = clean["blocks.1.hook_resid_mid"] - clean[hook][:, :, 2] + sent
    block = tiny.blocks[1]
    after = middle + block.mlp(block.ln2(middle))
    expected = measure(toy, tiny.unembed(tiny.ln_final(after)))
    torch.testing.assert_close(
        ablation.run(tiny, toy, given, heads((1, 2))), expected, atol=1e-4, rtol=1e-4
    )
    wrong_head = ablation.run(tiny, toy, given, heads((1, 1)))
    assert (wrong_head - expected).abs().mean() > 0.01


def test_an_mlp_is_replaced_as_the_residual_stream_says(tiny, toy: Task):
    given = ablation.stand_ins(tiny, toy)
    clean, twin = (tiny.run_with_cache(tokens)[1] for tokens in (toy.clean, toy.corrupted))
    after = clean["blocks.1.hook_resid_mid"] + twin["blocks.1.hook_mlp_out"]
    expected = measure(toy, tiny.unembed(tiny.ln_final(after)))
    alone = ablation.run(tiny, toy, given, mlps_L=torch.tensor([False, True]))
    torch.testing.assert_close(alone, expected, atol=1e-4, rtol=1e-4)


def test_faithfulness_is_a_ratio_of_means_with_an_interval():
    clean, empty = torch.full((40,), 3.0), torch.full((40,), 1.0)
    base = Baseline(clean, empty, empty)
    assert ablation.faithfulness(base, clean) == (1.0, 1.0, 1.0, None)
    assert ablation.faithfulness(base, empty) == (0.0, 0.0, 0.0, None)
    half = torch.cat([clean[:20], empty[20:]])
    value, low, high, _ = ablation.faithfulness(base, half)
    assert (
        value == 0.5
        and low == pytest.approx(0.5 - 1.96 * 0.5 / 40**0.5, abs=0.03)
        and low < 0.5 < high
    )
    assert ablation.mean(half)[0] == pytest.approx(2.0) and ablation.mean(half)[1] == pytest.approx(
        2 - 1.96 / 40**0.5, abs=0.06
    )


def test_a_component_is_in_where_its_interval_clears_the_level_on_either_side():
    shares = torch.tensor(
        [
            [0.2, 0.1, 0.3],
            [0.06, 0.04, 0.08],
            [0.04, 0.03, 0.049],
            [-0.2, -0.3, -0.1],
            [-0.06, -0.08, -0.04],
        ]
    )
    found = truth.members(truth.Effects("resample", shares[None], shares), 0.05)
    assert found.mlps.tolist() == [True, False, False, True, False] == found.heads[0].tolist()
    assert found.undecided_mlps.tolist() == [False, True, False, False, True]
    wide = truth.members(
        truth.Effects("resample", shares[None], torch.tensor([[0.0, -0.1, 0.1]])), 0.05
    )
    assert not wide.mlps.any() and wide.undecided_mlps.all()


def test_exhaustive_effects_are_the_single_ablations(tiny, toy: Task):
    base = Baseline(
        *(measure(toy, tiny(tokens)) for tokens in (toy.clean, toy.corrupted, toy.corrupted))
    )
    given = ablation.stand_ins(tiny, toy, "zero")
    found = truth.effects(ablation.Setting(tiny, toy, given, base))
    one = 1 - ablation.faithfulness(base, ablation.run(tiny, toy, given, heads((0, 3))))[0]
    assert (
        found.heads.shape == (2, 4, 3)
        and found.mlps.shape == (2, 3)
        and float(found.heads[0, 3, 0]) == one
    )
    assert (found.heads[..., 1] <= found.heads[..., 0]).all() and (
        found.heads[..., 0] <= found.heads[..., 2]
    ).all()


def test_a_task_the_model_cannot_do_is_refused_with_its_numbers(bundled: str):
    bridge = models.load(bundled)
    agreement = task("agreement", bridge, n=60)
    with pytest.raises(
        UsageError,
        match=r"does not do the task agreement: its logit difference is -?\d\.\d+ "
        r"\(above 0 on \d+%",
    ):
        ablation.setting(bridge, agreement)
    swapped = task("ioi", bridge, n=30)
    swapped = swapped._replace(right=swapped.wrong, wrong=swapped.right)
    with pytest.raises(UsageError, match=r"above 0 on 0% of 30 prompts, 95% interval 0% to 0%"):
        ablation.setting(bridge, swapped)
    same = task("ioi", bridge, n=30)
    with pytest.raises(
        UsageError,
        match=r"with every head resampled \(difference 0.000 to 0.000\), "
        "so nothing can be normalised",
    ):
        ablation.setting(bridge, same._replace(corrupted=same.clean))


def test_an_unknown_ablation_is_refused(tiny, toy: Task):
    with pytest.raises(
        UsageError, match="unknown ablation 'noise': kinds are resample, mean, zero"
    ):
        ablation.stand_ins(tiny, toy, "noise")  # type: ignore[arg-type]


def test_the_bundled_models_ioi_circuit_has_an_induction_head_and_a_mover(bundled: str):
    bridge = models.load(bundled)
    found = truth.measure_all(
        ablation.setting(bridge, task("ioi", bridge, n=40, split="held-out")), ("resample",)
    )
    inside = truth.members(found.effects["resample"]).heads
    assert inside[1, 7] and inside[3, 4] and inside.sum() <= 8
    assert found.empty == found.corrupted and found.clean[0] > found.empty[2]
