"""Activations split into features, decoder bias and error; where dictionaries stand."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import parts
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary, transcoder


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def test_the_parts_add_up_and_position_0_is_all_error():
    sae, x = dictionary(RESIDUAL), torch.randn(2, 4, 32, generator=torch.Generator().manual_seed(0))
    found = parts.split(sae, x, x)
    decoded = (found.code.to_dense() @ sae.W_dec.detach()).view(2, 4, 32)
    torch.testing.assert_close(decoded + found.shift + found.error, x)
    torch.testing.assert_close(found.error[:, 1:], (x - sae(x).detach())[:, 1:])
    assert torch.equal(found.error[:, 0], x[:, 0]) and set((found.code.tokens % 4).tolist()) == {
        1,
        2,
        3,
    }


def test_sites_come_in_the_order_of_the_model(model):
    found = parts.sites(
        model, [transcoder(1), dictionary(Z), dictionary("blocks.0.hook_resid_post"), transcoder(0)]
    )
    assert [site.write for site in found] == [
        "blocks.0.mlp.hook_out",
        RESIDUAL,
        Z,
        "blocks.1.mlp.hook_out",
    ]
    assert [site.read for site in found] == [
        "blocks.0.mlp.hook_in",
        RESIDUAL,
        Z,
        "blocks.1.mlp.hook_in",
    ]


@pytest.mark.parametrize(
    ("saes", "message"),
    [
        (
            [dictionary("blocks.5.hook_resid_post")],
            r"this model has no hook 'blocks\.5\.hook_resid_post'",
        ),
        (
            [dictionary(RESIDUAL, width=16)],
            r"the SAE for blocks\.0\.hook_out is of width 16, this model has 32 there",
        ),
        (
            [dictionary(RESIDUAL), dictionary("blocks.0.hook_resid_post")],
            r"more than one SAE explains blocks\.0\.hook_out",
        ),
    ],
)
def test_saes_that_do_not_fit_the_model_are_refused(model, saes, message: str):
    with pytest.raises(UsageError, match=message):
        parts.sites(model, saes)
