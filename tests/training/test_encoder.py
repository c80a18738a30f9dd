"""The encoder starts at the length that its first reconstruction is best at."""

from dataclasses import replace

import pytest
import torch

from saelab import SAE
from saelab.sparsify import Choice
from training import adam, encoder
from training.begin import new_sae
from training.config import Config

CONFIG = Config(cache="a", out="b", features=1024, k=32)


@pytest.mark.parametrize(
    ("form", "n_features", "d_model"),
    [
        (Choice(32), 1024, 256),
        (Choice(8), 4096, 64),
        (Choice(32, signed=True), 512, 128),
        (Choice(200), 256, 256),
    ],
    ids=str,
)
def test_the_length_makes_the_first_reconstruction_the_best_multiple(form, n_features, d_model):
    """Of data of any shape: here one direction in eight carries most of it."""
    draw = torch.Generator().manual_seed(9)
    x = torch.randn(512, d_model, generator=draw) * (1 + 3 * (torch.arange(d_model) % 8 == 0))
    with torch.no_grad():
        x_hat = SAE(d_model, n_features, form)(x)
    best = float((x * x_hat).sum() / x_hat.square().sum())
    length = encoder.best_multiple(form.k, n_features, d_model, signed=form.signed)
    assert length == pytest.approx(best, rel=0.05)
    assert 1 / (1 + form.k / d_model) != pytest.approx(best, rel=0.05)  # as if any k were chosen


def test_levels_that_aim_at_k_are_no_other_case():
    jump = replace(CONFIG, sparsify="jumprelu")
    assert encoder.length(jump, 256) == encoder.length(CONFIG, 256) < 0.7


def test_rows_start_at_the_length_and_move_at_its_share_of_the_rate():
    length = encoder.length(CONFIG, 256)
    sae = new_sae(CONFIG, 256, 256)
    torch.testing.assert_close(sae.W_enc, length * sae.W_dec)
    for config in (CONFIG, replace(CONFIG, lazy=False)):
        sae = new_sae(config, 256, 256)
        before = {name: p.detach().clone() for name, p in sae.named_parameters()}
        for parameter in sae.parameters():
            parameter.grad = torch.ones_like(parameter)
        adam.for_run(config, sae).step(0.01, 1)
        moved = {name: before[name] - p.detach() for name, p in sae.named_parameters()}
        assert length < 0.7 and float(moved["b_enc"].mean()) == pytest.approx(0.01)
        assert float(moved["W_enc"].mean()) == pytest.approx(0.01 * length, rel=1e-4)


@pytest.mark.parametrize(
    "other", [{"encoder": "unit"}, {"sparsify": "relu"}, {"target": "b"}], ids=str
)
def test_rows_start_at_one_where_asked_and_of_what_has_no_such_start(other: dict):
    config = replace(CONFIG, **other)
    assert encoder.length(config, 64) == 1
    assert float(new_sae(config, 64, 64).W_enc[0].detach().norm()) == pytest.approx(1)
