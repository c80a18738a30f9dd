"""A model whose patterns, norms and MLPs are held is affine, and at the values it was held at it is
the model itself."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import frozen
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, random_task

TOKENS = random_task().clean[:1]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def bend(model, held: frozen.Frozen) -> float:
    """How far from affine the logits are in the residual stream: |f(a) + f(b) - f(a + b) - f(0)|
    over the largest term."""
    a, b = torch.randn(2, 1, 7, 32, generator=torch.Generator().manual_seed(1))
    f = [
        frozen.run(model, held, {RESIDUAL: x}, [frozen.LOGITS])[frozen.LOGITS]
        for x in (a, b, a + b, 0 * a)
    ]
    return float((f[0] + f[1] - f[2] - f[3]).abs().max() / max(part.abs().max() for part in f))


def test_the_frozen_model_is_affine_and_the_free_one_is_not(model):
    held = frozen.freeze(model, TOKENS)
    assert bend(model, held) < 1e-5
    for missing in ("hook_pattern", "hook_scale", "mlp.hook_out"):
        thawed = {name: value for name, value in held.held.items() if not name.endswith(missing)}
        assert bend(model, held._replace(held=thawed)) > 1e-3


def test_held_at_its_own_values_it_is_the_model(model):
    held = frozen.freeze(model, TOKENS)
    torch.testing.assert_close(
        frozen.run(model, held, {}, [frozen.LOGITS])[frozen.LOGITS], model(TOKENS)
    )
    assert {name.rsplit(".", 1)[-1] for name in held.held} == {
        "hook_pattern",
        "hook_scale",
        "hook_out",
    }


def test_rows_are_the_functionals_they_stand_for(model):
    held = frozen.freeze(model, TOKENS)
    acts = frozen.run(model, held, {}, [frozen.EMBEDDING, RESIDUAL, "blocks.1.hook_out"])
    W_RD, positions_R = (
        torch.randn(3, 32, generator=torch.Generator().manual_seed(2)),
        torch.tensor([6, 3, 0]),
    )
    given = {RESIDUAL: acts[RESIDUAL][0]}
    found = frozen.reading(model, held, given, "blocks.1.hook_out").rows(positions_R, W_RD)
    whole_R = (acts["blocks.1.hook_out"][0, positions_R] * W_RD).sum(1)
    torch.testing.assert_close(
        (found.gradients[RESIDUAL] * acts[RESIDUAL]).sum((1, 2)) + found.constants, whole_R
    )
    assert not found.gradients[RESIDUAL][1, 4:].any()  # later positions do not reach earlier ones
    before = frozen.reading(model, held, given, "blocks.0.ln1.hook_out").rows(positions_R, W_RD)
    assert before.gradients == {}  # nothing flows backwards through the layers


def test_what_cannot_be_frozen_or_read_is_refused(tiny_model: Path):
    model = models.load(tiny_model)
    with pytest.raises(UsageError, match=r"no hook 'blocks\.7\.hook_out'"):
        frozen.run(model, frozen.Frozen(TOKENS, {}), {}, ["blocks.7.hook_out"])
    model.set_use_split_qkv_input(True)
    with pytest.raises(UsageError, match="frozen norms do not act while use_split_qkv_input is on"):
        frozen.freeze(model, TOKENS)
