"""Steering: the shifts by hand, their effect on logits and task, and the control of equal
length."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import models
from saelab.activations import Cache
from saelab.analysis import frozen, steering
from saelab.analysis.circuits import measure
from saelab.analysis.steering import Edit
from saelab.errors import UsageError
from saelab.models import running
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, random_task, transcoder
from tests.conftest import HOOK

TASK = random_task()


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def test_each_mode_moves_the_activation_by_its_row():
    sae, x = dictionary(RESIDUAL), torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        z_BF = sae.encode(x).to_dense()
    on = int(z_BF[2].argmax())
    off = int((z_BF[2] == 0).nonzero()[0])
    row, value = sae.W_dec.detach()[on], z_BF[2, on]
    torch.testing.assert_close(steering.shift(sae, x, [Edit(on, "ablate")])[0, 2], -value * row)
    torch.testing.assert_close(
        steering.shift(sae, x, [Edit(on, "clamp", 3.0)])[0, 2], (3 - value) * row
    )
    torch.testing.assert_close(steering.shift(sae, x, [Edit(on, "add", 2.0)])[0, 2], 2 * row)
    assert not steering.shift(sae, x, [Edit(off, "ablate")])[0, 2].any()
    both = steering.shift(sae, x, [Edit(on, "ablate"), Edit(off, "clamp", 1.0)])[0]
    torch.testing.assert_close(both[2], sae.W_dec.detach()[off] - value * row)
    assert not both[0].any()  # the first position passes untouched


@pytest.mark.parametrize(
    "sae",
    [dictionary(RESIDUAL), dictionary(Z), transcoder(0)],
    ids=["residual", "heads", "transcoder"],
)
def test_the_hooks_do_to_the_model_what_the_shift_says(model, sae):
    edits, site = (
        [Edit(3, "clamp", 5.0), Edit(4, "add", 2.0)],
        sae.origin.target,
    )
    seen = {}

    def keep(acts: torch.Tensor, hook) -> None:
        seen[hook.name] = acts.detach().flatten(2)

    model.run_with_hooks(TASK.clean, fwd_hooks=[(sae.origin.hook, keep), (site, keep)])
    wanted = seen[site] + steering.shift(sae, seen[sae.origin.hook], edits)
    model.run_with_hooks(TASK.clean, fwd_hooks=[*steering.hooks(model, sae, edits), (site, keep)])
    torch.testing.assert_close(seen[site], wanted)


def test_the_effect_is_that_of_the_steered_model(model):
    sae, edits = dictionary(RESIDUAL), [Edit(3, "clamp", 5.0)]
    found = steering.steer(model, TASK, sae, edits, n_random=4)
    with torch.no_grad():
        after = model.run_with_hooks(
            TASK.clean, return_type="logits", fwd_hooks=steering.hooks(model, sae, edits)
        )
        before = model(TASK.clean)
    assert found.metric[0] == pytest.approx(float(measure(TASK, after).mean()), rel=1e-4)
    assert found.change[0] == pytest.approx(
        float((measure(TASK, after) - measure(TASK, before)).mean()), rel=1e-4
    )
    kl = torch.nn.functional.kl_div(
        after[:, -1].log_softmax(-1), before[:, -1].softmax(-1), reduction="batchmean"
    )
    assert found.kl[0] == pytest.approx(float(kl), rel=1e-3)
    assert found.change[1] <= found.change[0] <= found.change[2]


def test_the_control_has_the_edit_s_length_and_another_direction(
    model, monkeypatch: pytest.MonkeyPatch
):
    sae, edits, given = dictionary(RESIDUAL), [Edit(3, "clamp", 5.0)], []
    real = frozen.run

    def spy(model, held, replace, read, extra=()):
        given.extend(replace.values())
        return real(model, held, replace, read, extra)

    monkeypatch.setattr(frozen, "run", spy)
    found = steering.steer(model, TASK, sae, edits, n_random=3)
    clean = real(model, frozen.Frozen(TASK.clean, {}), {}, [RESIDUAL])[RESIDUAL]
    moved = [acts - clean for acts in given[-4:]]
    lengths = sorted(moved, key=lambda m: float((m @ sae.W_dec[3].detach()).abs().sum()))
    for control in lengths[:-1]:
        torch.testing.assert_close(
            control.norm(dim=2), lengths[-1].norm(dim=2), atol=1e-4, rtol=1e-4
        )
        assert float((control @ sae.W_dec[3].detach()).abs().max()) < 0.9 * float(
            control.norm(dim=2).max()
        )
    assert found.random_change.shape == (3,) and found.random_change.std() > 0


def test_an_edit_that_changes_nothing_has_no_effect(model):
    found = steering.steer(model, TASK, dictionary(RESIDUAL), [Edit(3, "add", 0.0)], n_random=2)
    assert (
        found.change[:3] == (0, 0, 0)
        and found.kl[0] == pytest.approx(0, abs=1e-6)
        and not found.random_change.any()
    )


def test_generation_continues_steered_and_reproducibly(model):
    sae, edits = dictionary(RESIDUAL), [Edit(3, "clamp", 40.0)]
    steered, plain = (
        steering.generate(model, TASK.clean, 4, sae, e) for e in (edits, [Edit(3, "add", 0.0)])
    )
    assert (
        torch.equal(steered[:, :7], TASK.clean)
        and steered.shape == (6, 11)
        and not torch.equal(steered, plain)
    )
    with torch.no_grad():
        first = model.run_with_hooks(
            TASK.clean, return_type="logits", fwd_hooks=steering.hooks(model, sae, edits)
        )[:, -1]
    assert torch.equal(steered[:, 7], first.argmax(-1))
    drawn = [
        steering.generate(model, TASK.clean, 4, sae, edits, temperature=1.0, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])


def test_ablating_is_splicing_in_the_sum_without_that_feature():
    x = torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(2))
    for sae in (dictionary(RESIDUAL), transcoder(0), normalising()):
        with torch.no_grad():
            x_hat, code = sae.reconstruct(x)
        z = code.to_dense().double()
        feature = int(z[3].abs().argmax())
        rows = sae.W_dec.detach().double()
        size = (x[0, 3] - x[0, 3].mean()).double().std() + 1e-5 if sae.token_norm else 1.0
        without = x_hat[0, 3].double() - size * z[3, feature] * rows[feature]
        explained = torch.randn(32, generator=torch.Generator().manual_seed(3))
        error = explained.double() - x_hat[0, 3].double()
        steered = explained + steering.shift(sae, x, [Edit(feature, "ablate")])[0, 3]
        torch.testing.assert_close(steered.double(), without + error, atol=1e-5, rtol=1e-5)


def normalising():
    sae = dictionary(RESIDUAL)
    sae.token_norm = "layer_norm"
    return sae


def test_scale_1_is_the_model_as_it_is_bit_for_bit(model):
    sae = dictionary(RESIDUAL)
    on = [Edit(feature, "scale", 1.0) for feature in range(sae.n_features)]
    whole, twice = (
        running.logits(model, TASK.clean, steering.hooks(model, sae, edits))
        for edits in (on, [edit._replace(value=2.0) for edit in on])
    )
    clean = running.logits(model, TASK.clean)
    assert torch.equal(whole, clean) and not torch.equal(twice, clean)
    for temperature in (0.0, 1.0):
        options = {"temperature": temperature, "samples": 2, "n_random": 1, "seed": 3}
        both = steering.beside(model, sae, TASK.clean[0], 3, on, **options)
        assert torch.equal(both.steered, both.original)
        assert torch.equal(both.random[0], both.original)  # an edit of no length has no direction


def test_only_the_chosen_positions_are_edited():
    sae, x = dictionary(RESIDUAL), torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    moved = steering.push(sae, [Edit(3, "add", 2.0)], positions=[0, 2, 9])(x)
    assert moved[0].any(1).tolist() == [False, False, True, False]


def test_controls_are_as_long_as_the_edit_and_of_other_directions():
    sae, x = dictionary(RESIDUAL), torch.randn(1, 4, 32, generator=torch.Generator().manual_seed(0))
    edits = [Edit(3, "clamp", 5.0), Edit(9, "add", -2.0)]
    moved = steering.push(sae, edits)(x)
    (random,) = steering.random_rows(sae, 2, 1)
    for other in (random, sae.W_dec.detach()[[4, 5]]):
        control = steering.push(sae, edits, other)(x)
        torch.testing.assert_close(control.norm(dim=2), moved.norm(dim=2))
        assert float(torch.cosine_similarity(control[:, 1:], moved[:, 1:], dim=2).abs().max()) < 0.9


def test_similar_features_fire_about_as_often_and_are_others():
    density = np.array([0.5, 0.0, 0.1, 0.11, 0.09, 1e-4, 0.1])
    sets = steering.similar(density, [2, 6], n=9)
    assert all(len(set(one) | {2, 6}) == 4 and 1 not in one for one in sets) and sets
    many = np.full(100, 1e-4)
    many[40:61] = 0.1
    assert all(40 <= one[0] < 61 for one in steering.similar(many, [50], n=19))
    assert steering.similar(np.array([0.1, 0.0]), [0], n=2) == []


def test_a_planted_feature_raises_its_token_s_logit(model):
    sae, token = dictionary("blocks.1.hook_out"), 65
    with torch.no_grad():
        sae.W_dec[7] = torch.nn.functional.normalize(model.W_U[:, token], dim=0)
    before = running.logits(model, TASK.clean, last=True)[:, token]
    raised = [
        running.logits(
            model, TASK.clean, steering.hooks(model, sae, [Edit(7, "clamp", value)]), last=True
        )[:, token]
        for value in (20.0, 60.0)
    ]
    assert (raised[0] > before).all() and (raised[1] > raised[0]).all()
    drawn = steering.beside(model, sae, TASK.clean[0], 3, [Edit(7, "clamp", 400.0)])
    assert (drawn.steered == token).all() and not (drawn.random == token).all()


def test_the_change_of_the_loss_is_that_of_the_text(model, tiny_cache: Path):
    cache, sae = Cache(tiny_cache), dictionary(RESIDUAL)
    edits = [Edit(feature, "ablate") for feature in range(12)]
    pushes = {"steered": steering.push(sae, edits), "none": lambda x: torch.zeros_like(x)}
    change = steering.loss_change(model, sae, pushes, cache, n_tokens=600)
    tokens = torch.cat([chunk.tokens for chunk in cache.contexts(HOOK, "held_out")])
    losses = []
    for acting in ((), steering.hooks(model, sae, edits)):
        logits = running.logits(model, tokens[: 31 * 20], acting)
        # The prediction made at BOS does not count.
        losses.append(losses_of(logits, tokens)[:20, 1:].double().mean())
    assert change.n_predictions == 20 * 30 and change.n_documents > 1
    steered = change.changes["steered"]
    assert steered.value == pytest.approx(float(losses[1] - losses[0]), rel=1e-3, abs=1e-6)
    assert steered.low < steered.value < steered.high
    assert change.changes["none"][:3] == pytest.approx((0, 0, 0), abs=1e-7)


def losses_of(logits, tokens):
    rows = tokens[: len(logits)]
    chances = logits[:, :-1].log_softmax(-1)
    return -chances.gather(2, rows[:, 1:, None]).squeeze(2)


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([], "no edit to steer with"),
        ([Edit(48, "ablate")], "no feature 48: this SAE has 48"),
        (
            [Edit(1, "double")],
            "no way to edit a feature called 'double'; there are add, clamp, ablate, scale",
        ),  # type: ignore[arg-type]
    ],
)
def test_impossible_edits_are_refused(model, edits, message: str):
    with pytest.raises(UsageError, match=message):
        steering.hooks(model, dictionary(RESIDUAL), edits)


def test_foreign_saes_and_long_texts_are_refused(model):
    with pytest.raises(UsageError, match=r"no hook 'blocks\.9\.hook_out'"):
        steering.hooks(model, dictionary("blocks.9.hook_out"), [Edit(1, "ablate")])
    with pytest.raises(UsageError, match="of width 16, this model has 32 there"):
        steering.steer(model, TASK, dictionary(RESIDUAL, width=16), [Edit(1, "ablate")])
    with pytest.raises(UsageError, match=r"7 \+ 26 tokens are more than the model's context of 32"):
        steering.generate(model, TASK.clean, 26, dictionary(RESIDUAL), [Edit(1, "ablate")])
