"""SAE: tied start, transcoder flag, inference form, verified file; and the known-bad SAEs that
loading must refuse."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from saelab import SAE, Choice, budgets, digests, kernels, scaling, sparsify
from saelab.errors import FailedRun, UsageError
from saelab.files import write_json
from saelab.origin import Identity, Origin


@pytest.fixture
def x() -> torch.Tensor:
    """600 tokens of width 16, not centred."""
    return torch.randn(600, 16, generator=torch.Generator().manual_seed(0)) + 0.5


def new(choice: sparsify.Sparsify | None = None, **options) -> SAE:
    """A small SAE with a bias (default: 4 features per token)."""
    sae = SAE(16, 48, choice or Choice(4), **options)
    sae.b_dec.data += 0.2
    return sae


def test_the_formula_holds_for_any_leading_dimensions(x):
    sae = new()
    pre = (x - sae.b_dec) @ sae.W_enc.T + sae.b_enc
    best = pre.relu().topk(4)
    by_hand = torch.zeros_like(pre).scatter(1, best.indices, best.values) @ sae.W_dec + sae.b_dec
    torch.testing.assert_close(sae(x), by_hand)
    torch.testing.assert_close(sae(x.view(20, 30, 16)), by_hand.view(20, 30, 16))


def test_a_transcoder_subtracts_nothing_from_its_input_and_may_change_width(x):
    sae = new(d_out=8, transcoder=True, skip=True)
    sae.W_skip.data += 0.1
    pre = x @ sae.W_enc.T
    best = pre.relu().topk(4)
    code = torch.zeros_like(pre).scatter(1, best.indices, best.values)
    torch.testing.assert_close(sae(x), code @ sae.W_dec + sae.b_dec + x @ sae.W_skip.T)


@pytest.mark.parametrize("over", ["batch", "feature"])
@pytest.mark.parametrize("signed", [False, True])
def test_calibrated_levels_reproduce_the_budget_of_the_sample_as_one_batch(x, over, signed):
    sae = new(Choice(4, over, signed))
    sae.calibrate(x.split(250))
    whole, frozen = sae.encode(x), sae.frozen().encode(x)
    assert torch.equal(whole.to_dense(), frozen.to_dense())


def test_levels_that_were_learned_learn_no_more_in_inference_form():
    sae = SAE(8, 16, sparsify.Threshold(level=0.1, bandwidth=0.2), seed=0)
    frozen = sae.frozen()
    assert "levels" in dict(sae.named_parameters())
    assert "levels" not in dict(frozen.named_parameters())
    frozen.levels = 2 * frozen.levels
    assert torch.allclose(sae.levels, torch.full((16,), 0.1))
    assert frozen.state_dict().keys() == sae.state_dict().keys()


def test_levels_of_unequal_shares_reproduce_them(x):
    share = torch.arange(1, 49) ** -1.0
    sae = new(Choice(4, "feature"))
    sae.calibrate(x.split(250), share=share)
    whole = sae.encode(x, budget=budgets.whole(share, 4 * 600, 600))
    assert torch.equal(whole.to_dense(), sae.frozen().encode(x).to_dense())
    assert not torch.equal(whole.to_dense(), sae.encode(x).to_dense())


def test_levels_do_not_depend_on_the_batches_calibration_reads_in(x):
    one, other = new(Choice(4, "feature")), new(Choice(4, "feature"))
    one.calibrate(x.split(600))
    other.calibrate(x.split(7))
    assert torch.equal(one.levels, other.levels)


def test_the_inference_form_codes_a_token_alone_as_in_any_batch_and_the_training_form_does_not(x):
    sae = new(Choice(4, "batch"))
    sae.calibrate([x])
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))

    def alone_equals_batch(form: SAE) -> bool:
        together = form.encode(x).to_dense()
        shuffled = form.encode(x[order]).to_dense()
        single = torch.cat([form.encode(row[None]).to_dense() for row in x[:40]])
        return torch.equal(together[order], shuffled) and torch.equal(together[:40], single)

    assert alone_equals_batch(sae.frozen())
    assert not alone_equals_batch(sae)


def test_an_uncalibrated_batch_budget_has_no_inference_form():
    with pytest.raises(UsageError, match="calibrate"):
        new(Choice(4, "batch")).frozen()


def test_folding_the_scale_back_gives_an_sae_of_raw_activations(x):
    sae = new()
    raw = new()
    scaling.fold(raw, 3.0)
    torch.testing.assert_close(raw(3.0 * x), 3.0 * sae(x))


@pytest.mark.parametrize(
    "choice",
    [Choice(4), Choice(4, "batch"), Choice(4, "feature", signed=True), Choice(3, signed=True)],
)
def test_a_saved_sae_is_the_same_function_bit_for_bit(x, choice, tmp_path):
    sae = new(choice)
    sae.calibrate([x])
    sae = sae.frozen()
    sae.origin = Origin("blocks.1.hook_out", tokens=5, more={"note": [1]})
    sae.save(tmp_path, x[:8])
    again = SAE.load(tmp_path)
    assert (
        torch.equal(again(x), sae(x))
        and again.origin == sae.origin
        and again.sparsify == sae.sparsify
    )


def test_an_sae_of_schema_1_still_opens(x, tmp_path):
    new().save(tmp_path, x[:8])
    header = json.loads((tmp_path / "sae.json").read_text())
    del header["origin"]
    about = {"model": {"name": "m", "revision": "r", "tokenizer_hash": "t"}, "hook": "a"}
    old = {**header, "schema": "saelab/sae/1", "about": {**about, "target": None, "colour": "red"}}
    write_json(tmp_path / "sae.json", old)
    expected = Origin("a", model=Identity("m", "r", "t"), more={"colour": "red"})
    assert SAE.load(tmp_path).origin == expected
    assert expected.hooks == ("a", "a")
    assert Origin("a", "b").hooks == ("a", "b")


def test_bad_twins_of_a_saved_sae_are_refused(x, tmp_path):
    new().save(tmp_path, x[:8])
    good = load_file(tmp_path / "sae.safetensors")
    generator = torch.Generator().manual_seed(0)
    twins = {
        "shrunk": {"W_dec": good["W_dec"] * 0.9},
        "rotated": {
            "W_dec": good["W_dec"] @ torch.linalg.qr(torch.randn(16, 16, generator=generator)).Q
        },
        "permuted": {"W_dec": good["W_dec"].roll(1, 0)},
        "shifted": {"b_dec": good["b_dec"] + 0.05},
        "encoder": {"W_enc": good["W_enc"] * 1.05},
    }
    header = json.loads((tmp_path / "sae.json").read_text())
    for name, change in twins.items():
        save_file({**good, **change}, tmp_path / "sae.safetensors")
        entry = digests.entry(tmp_path / "sae.safetensors")  # undamaged, and another function
        write_json(tmp_path / "sae.json", {**header, "weights": entry})
        with pytest.raises(FailedRun, match="not the function that was saved"):
            SAE.load(tmp_path)
            pytest.fail(name)


def test_missing_cut_and_foreign_files_are_named(x, tmp_path):
    with pytest.raises(
        UsageError, match=r"holds no SAE: it is empty; known are saelab \(sae\.json\)"
    ):
        SAE.load(tmp_path)
    new().save(tmp_path)
    whole = (tmp_path / "sae.safetensors").read_bytes()
    (tmp_path / "sae.safetensors").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(FailedRun, match=r"sae.safetensors of .* was cut or changed"):
        SAE.load(tmp_path)
    (tmp_path / "sae.safetensors").unlink()
    with pytest.raises(UsageError, match=r"no sae.safetensors"):
        SAE.load(tmp_path)
    header = json.loads((tmp_path / "sae.json").read_text())
    (tmp_path / "sae.safetensors").write_bytes(whole)
    write_json(tmp_path / "sae.json", {**header, "schema": "saelab/sae/9"})
    with pytest.raises(UsageError, match="saelab/sae/9"):
        SAE.load(tmp_path)


def test_k_above_the_number_of_features_is_refused():
    with pytest.raises(UsageError, match="k=64 is more than n_features=32"):
        SAE(16, 32, Choice(64))


@pytest.mark.parametrize("over", ["token", "batch", "feature"])
def test_gradients_of_the_whole_sae_pass_gradcheck(over):
    sae = SAE(5, 9, Choice(2, over)).double()
    for parameter in sae.parameters():
        parameter.data += 0.1 * torch.randn(
            parameter.shape, generator=torch.Generator().manual_seed(0)
        )
    x = torch.randn(
        6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2), requires_grad=True
    )
    parameters = list(sae.parameters())
    assert torch.autograd.gradcheck(lambda *_: sae(x), [x, *parameters])


def test_the_boost_of_a_gradient_is_normalised_per_token(x):
    sae = new(Choice(4, beta=1.0))
    g = torch.randn(600, 16, generator=torch.Generator().manual_seed(3))
    with kernels.backend("reference"):
        plain, scaled = sae.encode(x, g), sae.encode(x, g * torch.rand(600, 1).add(0.1))
    assert torch.equal(plain.features, scaled.features)


def test_a_reconstruction_is_the_call_and_holds_the_skip_that_decoding_lacks():
    sae = SAE(6, 12, Choice(2), d_out=5, transcoder=True, skip=True, seed=1)
    sae.W_skip.data.normal_(generator=torch.Generator().manual_seed(0))
    x = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(2))
    x_hat, code = sae.reconstruct(x)
    assert x_hat.shape == (3, 4, 5) and code.n_tokens == 12
    torch.testing.assert_close(x_hat, sae(x))
    by_hand = code.to_dense() @ sae.W_dec + sae.b_dec + x.flatten(0, 1) @ sae.W_skip.T
    torch.testing.assert_close(x_hat.flatten(0, 1), by_hand)
    assert not torch.allclose(sae.decode(code), x_hat.flatten(0, 1))  # it knows no x
