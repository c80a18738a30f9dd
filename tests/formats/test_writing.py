"""What is written as others read it comes back bit for bit where the form holds it, and as the same
function elsewhere; what a form cannot hold is refused with the reason."""

from pathlib import Path

import numpy as np
import pytest
import torch

from saelab import SAE, Choice, Threshold, formats
from saelab.errors import UsageError
from saelab.formats import circuit_tracer
from saelab.origin import Identity, Origin
from saelab.sparsify import Sparsify
from tests.formats.measuring import measured, off

F, D = 24, 6


def made(
    form: Sparsify, *, levels: bool = False, transcoder: bool = False, skip: bool = False,
    layer: int = 1, token_norm: str = "",
) -> SAE:  # fmt: skip
    """A random SAE with biases, and unit rows."""
    generator = torch.Generator().manual_seed(0)
    sae = SAE(D, F, form, transcoder=transcoder, skip=skip)
    sae.requires_grad_(False)
    for bias in (sae.b_enc, sae.b_dec):
        bias.copy_(torch.randn(bias.shape, generator=generator) * 0.3)
    if skip:
        sae.W_skip.copy_(torch.randn(D, D, generator=generator))  # type: ignore[union-attr]
    if levels:
        sae.levels = torch.rand(F, generator=generator)
    sae.token_norm = token_norm  # type: ignore[assignment]
    hooks = {"hook": f"blocks.{layer}.mlp.hook_in", "target": f"blocks.{layer}.hook_mlp_out"}
    if not transcoder:
        hooks = {"hook": f"blocks.{layer}.hook_out"}
    sae.origin = Origin(**hooks, model=Identity("gpt2"))
    return sae


TOPK, ABSTOPK, RELU = Choice(3), Choice(3, signed=True), Threshold()
EXACT = {
    ("saelens", "topk"): made(TOPK),
    ("saelens", "abstopk"): made(ABSTOPK),
    ("saelens", "relu"): made(RELU),
    ("saelens", "jumprelu"): made(RELU, levels=True),
    ("saelens", "skip transcoder"): made(RELU, levels=True, transcoder=True, skip=True),
    ("saelens", "transcoder"): made(RELU, transcoder=True),
    ("saelens", "layer norm"): made(TOPK, token_norm="layer_norm"),
    ("sparsify", "topk"): made(TOPK),
    ("sparsify", "skip transcoder"): made(TOPK, transcoder=True, skip=True),
    ("dictionary_learning", "topk"): made(TOPK),
    ("dictionary_learning", "relu"): made(RELU),
    ("openai", "relu"): made(RELU),
    ("openai", "topk"): made(TOPK, token_norm="layer_norm"),
}


def there_and_back(sae: SAE, at: Path, form: str) -> SAE:
    path = at / "sae.pt" if form == "openai" else at / "written"
    formats.save(sae, path, form)
    return SAE.load(path)


@pytest.mark.parametrize(("form", "what"), EXACT)
def test_what_a_form_holds_comes_back_bit_for_bit(form: str, what: str, tmp_path: Path):
    sae = EXACT[form, what]
    back = there_and_back(sae, tmp_path, form)
    assert back.sparsify == sae.sparsify and back.origin.format == form
    held, other = sae.state_dict(), back.state_dict()
    assert held.keys() == other.keys()
    assert all(torch.equal(held[name], other[name]) for name in held)
    assert np.array_equal(measured(back)[0], measured(sae)[0])


@pytest.mark.parametrize("form", ["saelens", "dictionary_learning"])
def test_levels_come_back_as_the_same_function(form: str, tmp_path: Path):
    sae = made(RELU, levels=True)
    back = there_and_back(sae, tmp_path, form)
    assert off(measured(back)[0], measured(sae)[0]) < 1e-5
    assert np.array_equal(measured(back)[1] != 0, measured(sae)[1] != 0)
    sae.levels = sae.levels + 0.3  # type: ignore[operator]
    assert off(measured(back)[0], measured(sae)[0]) > 1e-2  # they do matter


def test_a_calibrated_budget_is_written_as_its_inference_form(tmp_path: Path):
    sae = made(Choice(3, "batch"))
    with pytest.raises(UsageError, match="no inference levels yet"):
        formats.save(sae, tmp_path / "a", "saelens")
    sae.calibrate([torch.randn(512, D, generator=torch.Generator().manual_seed(1))])
    back = there_and_back(sae, tmp_path, "saelens")
    assert np.array_equal(measured(back)[0], measured(sae.frozen())[0])


def test_places_are_written_by_the_names_that_readers_know(tmp_path: Path):
    there = there_and_back(made(TOPK), tmp_path, "saelens").origin
    assert there.hook == "blocks.1.hook_resid_post" and there.model == Identity("gpt2")


REFUSED = {
    ("saelens", "a transcoder with a top-k"): made(TOPK, transcoder=True),
    ("saelens", "a signed threshold"): made(Threshold(signed=True)),
    ("sparsify", "only a top-k"): made(RELU),
    ("sparsify", "its values are signed"): made(ABSTOPK),
    ("sparsify", "normalises each token"): made(TOPK, token_norm="layer_norm"),
    ("dictionary_learning", "only autoencoders"): made(TOPK, transcoder=True),
    ("dictionary_learning", "its values are signed"): made(ABSTOPK),
    ("openai", "this does not"): made(TOPK),
    ("openai", "it has thresholds"): made(RELU, levels=True),
}


@pytest.mark.parametrize(("form", "reason"), REFUSED)
def test_what_a_form_cannot_hold_is_refused_before_anything_is_written(
    form: str, reason: str, tmp_path: Path
):
    with pytest.raises(UsageError, match=f"cannot be written as {form}: .*{reason}"):
        formats.save(REFUSED[form, reason], tmp_path / "written", form)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("form", [TOPK, RELU])
def test_a_set_of_transcoders_comes_back_layer_by_layer(form: Sparsify, tmp_path: Path):
    levels = isinstance(form, Threshold)
    saes = [made(form, levels=levels, transcoder=True, skip=True, layer=n) for n in (1, 0)]
    circuit_tracer.write_set(saes, tmp_path / "set")
    for sae, layer in zip(saes, (1, 0), strict=True):
        back = SAE.load(tmp_path / "set" / f"layer_{layer}.safetensors")
        assert back.origin.hooks == sae.origin.hooks and back.sparsify == sae.sparsify
        assert np.array_equal(measured(back)[0], measured(sae)[0])
    with pytest.raises(UsageError, match="no transcoder of layer 0"):
        circuit_tracer.write_set(saes[:1], tmp_path / "gap")
    with pytest.raises(UsageError, match="two transcoders of layer 1"):
        circuit_tracer.write_set([saes[0], saes[0]], tmp_path / "double")
    with pytest.raises(UsageError, match="it is an autoencoder"):
        circuit_tracer.write_set([made(form, levels=levels, layer=0)], tmp_path / "sae")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["set"]
