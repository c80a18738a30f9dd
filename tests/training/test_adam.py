"""Adam with bfloat16 moments, and Adam whose features wait while they have no gradient, beside
torch's own."""

from dataclasses import replace

import pytest
import torch

from saelab import SAE
from saelab.errors import UsageError
from training import adam
from training.checks import check
from training.config import Config

CONFIG = Config(cache="a", out="b", features=12, k=2, batch=4, tokens=400, lazy=False)
LAZY = replace(CONFIG, lazy=True)


def stepped(config: Config, n_steps: int = 6, thrifty: bool = True, every: int = 1) -> SAE:
    """An SAE after some steps on random gradients; its Adam is in `adam_`. The odd features have
    none but at every `every`th step."""
    sae = SAE(5, config.features, config.form, seed=1)
    kind = adam.Thrifty if thrifty else adam.Torch
    sae.adam_ = kind(config, sae)  # type: ignore[assignment]
    generator = torch.Generator().manual_seed(2)
    for number in range(1, n_steps + 1):
        for name, parameter in sae.named_parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)
            if name != "b_dec" and number % every:
                parameter.grad[1::2] = 0
        sae.adam_.step(0.01, number)
    return sae


def test_with_a_gradient_everywhere_it_is_torchs_adam():
    exact = stepped(CONFIG, thrifty=False)
    for config in (CONFIG, LAZY):
        mine = stepped(config)
        for name, parameter in exact.named_parameters():
            torch.testing.assert_close(mine.get_parameter(name), parameter)
        torch.testing.assert_close(mine.adam_.moments(), exact.adam_.moments())
    worse = stepped(replace(CONFIG, beta1=0.8))
    assert (worse.W_enc - exact.W_enc).abs().max() > 1e-4


@pytest.mark.parametrize("sparsify", ["topk", "jumprelu"])
def test_a_feature_without_a_gradient_keeps_its_bits(sparsify: str):
    config = replace(LAZY, sparsify=sparsify)
    before, after = stepped(config, 3, every=3), stepped(config, 5, every=3)
    for name in {name for name, _ in before.named_parameters()} - {"b_dec"}:
        here, there = (sae.get_parameter(name) for sae in (before, after))
        assert torch.equal(here[1::2], there[1::2]) and not torch.equal(here[::2], there[::2])
    dense = stepped(CONFIG, 5, every=3)
    assert not torch.equal(dense.W_enc[1::2], stepped(CONFIG, 3, every=3).W_enc[1::2])


def test_a_feature_moves_that_has_a_gradient_in_its_level_alone():
    config = replace(LAZY, sparsify="jumprelu")
    sae = SAE(5, 12, config.form, seed=1)
    for parameter in sae.parameters():
        parameter.grad = torch.zeros_like(parameter)
    sae.levels.grad[3] = 1.0
    (moved,) = adam.Thrifty(config, sae).step(0.01, 1)
    assert moved.tolist() == [3]


def test_moments_decay_by_the_steps_that_a_feature_has_waited(monkeypatch):
    exact = stepped(CONFIG, 8, thrifty=False, every=4).adam_.moments()
    mine = stepped(LAZY, 8, every=4).adam_.moments()
    torch.testing.assert_close(mine, exact)

    def undecayed(*arguments):
        yield from ((rows, torch.ones(1)) for rows, _ in _pieces(*arguments))

    _pieces = adam._pieces
    monkeypatch.setattr(adam, "_pieces", undecayed)
    twin = stepped(LAZY, 8, every=4).adam_.moments()
    assert (twin["W_enc"][0] - exact["W_enc"][0]).abs().max() > 0.01


def test_the_mean_of_many_roundings_is_the_number_and_the_nearest_one_is_not():
    exact = torch.tensor([1.001, -1.001, 1e-30, -3e5, 0.0, 1.5]).expand(4096, 6).contiguous()
    noise = torch.Generator().manual_seed(0)
    mean = adam.rounded(exact, noise).double().mean(0)
    unit = exact[0].abs() * 2**-8
    # 4,096 draws of at most a unit in the last place: four standard errors
    assert ((mean - exact[0]).abs() <= 4 * unit / 2 / 4096**0.5).all()
    nearest = exact.bfloat16().double().mean(0)
    assert ((nearest - exact[0]).abs() > 4 * unit / 2 / 4096**0.5)[:2].all()
    assert torch.equal(adam.rounded(exact, noise)[:, 4:], exact[:, 4:].bfloat16())  # as they are


def test_a_second_moment_in_bfloat16_decays_only_if_it_is_rounded_at_random(monkeypatch):
    config = replace(CONFIG, moments="bfloat16", beta2=0.999)
    for rounding, decayed in ((adam.rounded, 0.5), (lambda exact, _: exact.bfloat16(), 1.0)):
        monkeypatch.setattr(adam, "rounded", rounding)
        sae = SAE(5, 12, config.form)
        mine = adam.Thrifty(config, sae)
        mine.pairs["W_enc"][1].fill_(1.0)
        for parameter in sae.parameters():
            parameter.grad = torch.zeros_like(parameter)
        for number in range(1, 694):  # 0.999^693 = 0.5
            mine.step(0.0, number)
        mean = mine.pairs["W_enc"][1].float().mean().item()
        assert mean == pytest.approx(decayed, rel=0.03)


def test_moments_are_not_rounded_where_parameters_are():
    with pytest.raises(UsageError, match="moments=bfloat16 keeps the parameters in float32"):
        check(replace(CONFIG, dtype="bfloat16", moments="bfloat16"))
    check(replace(CONFIG, moments="bfloat16", lazy=True))
    check(replace(CONFIG, sparsify="jumprelu", moments="bfloat16"))


def test_features_wait_in_float32():
    for form in ("topk", "feature-choice", "relu", "jumprelu"):
        assert adam.waits(Config(sparsify=form))
    for other in ({"lazy": False}, {"dtype": "bfloat16"}):
        assert not adam.waits(Config(**other))
