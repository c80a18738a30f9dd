"""A transcoder starts at what a sample of its tokens says: its decoder rows lessen the error."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from saelab.kernels import reference
from saelab.sparsify import Choice
from training import aim
from training.begin import new_sae
from training.config import Config
from training.layout import ALONE
from training.run import Run

D, E, F, K = 24, 16, 64, 4
CONFIG = Config(cache="a", out="b", hook="in", target="out", features=F, k=K, tokens=4096)
CONFIG = replace(CONFIG, batch=256)


def sample(n: int = 1024) -> tuple[Tensor, Tensor]:
    """Inputs that have much in common, and outputs that are no linear function of them."""
    draw = torch.Generator().manual_seed(0)
    common_D, into_DE = torch.randn(D, generator=draw), torch.randn(D, E, generator=draw)
    x_BD = common_D + torch.randn(n, D, generator=draw)
    return x_BD, (x_BD @ into_DE).relu()


def started(config: Config = CONFIG):
    x_BD, y_BE = sample()
    run = Run(config, x_BD, y_BE)
    return run, x_BD / run.scale.input, y_BE / run.scale.target


def test_a_row_is_the_mean_of_what_is_to_be_written_where_its_feature_fires():
    run, x_BD, y_BE = started()
    sae = run.sae
    with torch.no_grad():
        code = sae.encode(x_BD).to_dense()
    due_FE = torch.nn.functional.normalize(code.T @ (y_BE - sae.b_dec), dim=1)
    fires_F = code.sum(0) > 0
    assert fires_F.sum() > F / 2
    torch.testing.assert_close(sae.W_dec[fires_F].detach(), due_FE[fires_F], rtol=1e-4, atol=1e-5)


def test_the_first_reconstruction_is_the_best_multiple_and_better_than_none():
    run, x_BD, y_BE = started()
    missed_BE = y_BE - run.sae.b_dec.detach()
    with torch.no_grad():
        written_BE = run.sae(x_BD) - run.sae.b_dec
    best = float((missed_BE * written_BE).sum() / written_BE.square().sum())
    assert best == pytest.approx(1, abs=1e-3)
    assert (missed_BE - written_BE).square().sum() < 0.8 * missed_BE.square().sum()
    random, x_BD, y_BE = started(replace(CONFIG, encoder="unit"))
    with torch.no_grad():
        worse = (y_BE - random.sae(x_BD)).square().sum()
    assert worse > 2 * missed_BE.square().sum()


def test_what_all_inputs_have_in_common_decides_no_choice():
    fires = []
    for config in (CONFIG, replace(CONFIG, encoder="unit")):
        run, x_BD, _ = started(config)
        with torch.no_grad():
            fires.append(float((run.sae.encode(x_BD).to_dense() > 0).any(0).float().mean()))
    assert fires[0] == 1.0 and fires[1] < 0.9


def test_of_layers_each_row_is_of_its_own_outputs():
    config = replace(CONFIG, hook="a+b", target="c+d", clt=True)
    clt = new_sae(config, 2 * D, 2 * E)
    (x_BD, y_BE), (other_BD, other_BE) = sample(), sample()
    x_BD, y_BE = torch.cat([x_BD, other_BD.flip(0)], 1), torch.cat([y_BE, other_BE.flip(0)], 1)
    aim.aim(clt, Choice(K), x_BD, y_BE, ALONE)
    missed_BE, sizes = y_BE - clt.b_dec.detach(), []
    for i, layer in enumerate(clt.layers):
        own_BD = x_BD[:, i * D : (i + 1) * D]
        code = reference.choose(own_BD, layer.W_enc.detach(), layer.b_enc.detach(), Choice(K))
        due_FE = code.to_dense().T @ missed_BE[:, i * E :]
        due_FE = torch.nn.functional.normalize(due_FE, dim=1)
        fires_F = code.to_dense().sum(0) > 0
        torch.testing.assert_close(
            layer.W_dec[fires_F].detach(), due_FE[fires_F], rtol=1e-3, atol=1e-4
        )
        sizes.append(layer.W_dec.shape[1])
    assert sizes == [2 * E, E]


@pytest.mark.parametrize("other", [{"target": None}, {"encoder": "unit"}, {"freeze": "decoder"}])
def test_what_starts_otherwise(other: dict):
    assert aim.due(CONFIG) and not aim.due(replace(CONFIG, **other))
