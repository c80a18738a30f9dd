"""Steering: the shifts by hand, their effect on logits and task, and the control of equal
length."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import steering
from saelab.analysis.circuits import measure
from saelab.analysis.steering import Edit
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, random_task, transcoder

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
    real = steering.frozen.run

    def spy(model, held, replace, read, extra=()):
        given.extend(replace.values())
        return real(model, held, replace, read, extra)

    monkeypatch.setattr(steering.frozen, "run", spy)
    found = steering.steer(model, TASK, sae, edits, n_random=3)
    clean = real(model, steering.frozen.Frozen(TASK.clean, {}), {}, [RESIDUAL])[RESIDUAL]
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


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        ([], "no edit to steer with"),
        ([Edit(48, "ablate")], "no feature 48: this SAE has 48"),
        (
            [Edit(1, "double")],
            "no way to edit a feature called 'double'; there are add, clamp, ablate",
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
