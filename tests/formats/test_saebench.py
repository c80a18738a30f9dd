"""SAEBench's interface gives what the SAE gives, in any dtype and with leading dimensions; a report
becomes the `core` result that its schema asks for, and says nothing that was not measured."""

import json
from typing import Any

import pytest
import torch

import saelab
from saelab import SAE, Choice, Threshold, sparsify
from saelab.errors import UsageError
from saelab.formats import saebench
from saelab.formats.saebench_others import others
from saelab.formats.saebench_results import UNMEASURED, core
from saelab.origin import Identity, Origin
from saelab.sparsify import Own, Sparsify
from tests import toy_index as toy

D, F = 6, 24
# The fields that SAEBench 0.6.0's schema of `core` requires.
REQUIRED = {
    "model_behavior_preservation": ("kl_div_score", "kl_div_with_ablation", "kl_div_with_sae"),
    "model_performance_preservation": (
        *("ce_loss_score", "ce_loss_with_ablation", "ce_loss_with_sae", "ce_loss_without_sae"),
    ),
    "reconstruction_quality": (
        *("explained_variance", "explained_variance_legacy", "mse", "cossim"),
    ),
    "shrinkage": ("l2_norm_in", "l2_norm_out", "l2_ratio", "relative_reconstruction_bias"),
    "sparsity": ("l0", "l1"),
    "token_stats": ("total_tokens_eval_reconstruction", "total_tokens_eval_sparsity_variance"),
    "misc_metrics": (
        *("freq_over_1_percent", "freq_over_10_percent", "normalized_freq_over_1_percent"),
        *("normalized_freq_over_10_percent", "average_max_encoder_cosine_sim"),
        *("average_max_decoder_cosine_sim", "frac_alive"),
    ),
}


def made(form: Sparsify, norm: float = 1.0, *, transcoder: bool = False) -> SAE:
    sae = SAE(D, F, form, transcoder=transcoder).requires_grad_(False)
    generator = torch.Generator().manual_seed(0)
    sae.b_enc.copy_(torch.randn(F, generator=generator) * 0.3)
    sae.b_dec.copy_(torch.randn(D, generator=generator) * 0.3)
    sae.W_dec *= norm * torch.linspace(0.5, 2, F)[:, None] if norm != 1 else 1
    sae.origin = Origin("blocks.1.hook_out", model=Identity("gpt2"), sparsify="topk", k=3)
    return sae


@pytest.mark.parametrize("norm", [1.0, 3.0])
@pytest.mark.parametrize("form", [Choice(3), Choice(3, signed=True), Threshold()])
def test_the_object_is_the_function(form: Sparsify, norm: float):
    sae, x = made(form, norm), torch.randn(2, 5, D, generator=torch.Generator().manual_seed(1))
    mine = saebench.adapter(sae)
    code_BTF = mine.encode(x)
    pre = (x - mine.b_dec).double() @ mine.W_enc.double() + mine.b_enc.double()
    kept = code_BTF != 0
    assert code_BTF.shape == (2, 5, F) and kept.any()
    assert torch.allclose(code_BTF[kept].double(), pre[kept], atol=1e-5)
    assert torch.allclose(mine(x), sae(x), atol=1e-5)
    assert torch.allclose(mine.decode(code_BTF), sae(x), atol=1e-5)
    assert torch.allclose(mine.W_dec.norm(dim=1), torch.ones(F), atol=1e-5)
    assert mine.W_enc.shape == (D, F) and mine.W_dec.shape == (F, D)


def test_the_object_says_what_it_is_asked():
    mine = saebench.adapter(made(Choice(3)))
    assert (mine.cfg.hook_layer, mine.cfg.hook_name) == (1, "blocks.1.hook_resid_post")
    assert (mine.cfg.d_in, mine.cfg.d_sae, mine.cfg.model_name) == (D, F, "gpt2")
    assert (mine.device, mine.dtype, mine.cfg.dtype) == (
        torch.device("cpu"),
        torch.float32,
        "float32",
    )
    json.dumps(mine.cfg.to_dict())


def test_in_half_precision_it_chooses_the_same_features():
    sae, x_BD = made(Choice(3)), torch.randn(50, D, generator=torch.Generator().manual_seed(1))
    x_BD = x_BD.bfloat16()
    mine = saebench.adapter(sae).to(dtype=torch.bfloat16)
    code_BF = mine.encode(x_BD)
    assert code_BF.dtype == mine.W_dec.dtype == mine(x_BD).dtype == mine.dtype == torch.bfloat16
    whole_BF = saebench.adapter(sae).encode(x_BD.float())
    assert torch.equal(code_BF != 0, whole_BF != 0)
    assert mine.cfg.dtype == "bfloat16"
    assert mine.to(torch.float32).dtype == torch.float32 and mine.to("cpu").cfg.device == "cpu"


def test_codes_keep_their_gradient():
    x_BD = torch.randn(4, D, requires_grad=True)
    saebench.adapter(made(Choice(3)))(x_BD).sum().backward()
    assert x_BD.grad is not None and x_BD.grad.abs().sum() > 0


def test_a_sparsifier_of_ones_own_goes_along(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(sparsify, "_masks", {})
    saelab.register("sparsifier", "loud", lambda pre: pre > 0.5)
    sae, x_BD = made(Own("loud")), torch.randn(9, D)
    mine = saebench.adapter(sae)
    assert torch.allclose(mine(x_BD), sae(x_BD), atol=1e-5) and mine.encode(x_BD).any()


REFUSED = {
    "it is a transcoder": made(Threshold(), transcoder=True),
    "is in no layer": made(Choice(3)),
    "normalises each token": made(Choice(3)),
}
REFUSED["is in no layer"].origin = Origin("hook_embed")
REFUSED["normalises each token"].token_norm = "layer_norm"


@pytest.mark.parametrize("reason", REFUSED)
def test_what_it_has_no_place_for_is_refused(reason: str):
    with pytest.raises(UsageError, match=f"cannot be written as saebench: .*{reason}"):
        saebench.adapter(REFUSED[reason])


REPORT = {
    **toy.REPORT,
    "kl": {"value": 0.1, "low": 0.09, "high": 0.11, "null": 7.0},
    "ce_clean": 2.0,
    "ce_spliced": 2.1,
    "ce_ablated": 9.0,
    "unseen_fraction": {"value": 0.25, "low": 0.2, "high": 0.3, "null": None},
}


def result(**changes: Any) -> dict[str, Any]:
    return core({**REPORT, **changes}, made(Choice(3)), "mine", millis=1_700_000_000_000)


def flat(result: dict[str, Any]) -> dict[str, float]:
    return {
        name: value
        for fields in result["eval_result_metrics"].values()
        for name, value in fields.items()
    }


def test_a_report_becomes_a_core_result():
    whole, report = result(), REPORT
    metrics = whole["eval_result_metrics"]
    assert {name: tuple(fields) for name, fields in metrics.items()} == REQUIRED
    told = flat(whole)
    assert told["kl_div_score"] == pytest.approx(6.9 / 7)
    assert told["frac_alive"] == 0.75
    assert told["ce_loss_with_ablation"] == report["ce_ablated"]
    assert told["ce_loss_without_sae"] == report["ce_clean"]
    assert told["explained_variance"] == pytest.approx(1 - report["fvu"]["value"])
    assert told["l0"] == report["l0"]["value"]
    assert told["l1"] == told["mse"] == told["l2_ratio"] == UNMEASURED
    notes = whole["eval_result_unstructured"]["saelab"]
    assert {name for name, value in told.items() if value == UNMEASURED} == {*notes["not_measured"]}
    assert "explained_variance" in notes["definitions_that_differ"]
    json.dumps(whole, allow_nan=False)


def test_what_a_report_lacks_is_not_measured():
    lacking = dict.fromkeys(("kl", "ce_recovered", "ce_clean", "ce_spliced", "ce_ablated"))
    told = flat(result(**lacking, no_losses="it predicts no tokens"))
    assert told["kl_div_score"] == told["ce_loss_score"] == told["ce_loss_with_sae"] == UNMEASURED
    assert told["l0"] > 0
    with pytest.raises(UsageError, match="its reconstruction is of another place"):
        core(REPORT, made(Threshold(), transcoder=True), "mine", millis=0)


def test_probes_and_the_structure_of_rows_have_results_of_their_own():
    def probe(task: str, dictionary: str, k: int | None, value: float) -> dict[str, Any]:
        about = {"task": task, "level": "last", "label": "x", "dictionary": dictionary, "k": k}
        return {**about, "accuracy": {"value": value}, "auc": {"value": value / 2}}

    rows = [
        *(probe(task, "sae", 1, value) for task, value in (("a", 0.5), ("a", 0.7), ("b", 1.0))),
        *(probe(task, "dense", None, 0.9) for task in "ab"),
        probe("a", "sae", 1, 0.0) | {"level": "pooled"},
    ]
    row = {"dictionary": "sae", "evaluation": "core", "metric": "l2 ratio", "value": 0.97}
    meta = {**row, "evaluation": "meta-structure", "metric": "variance of rows", "value": 0.3}
    suite = {"rows": [{**row, "dictionary": "random_init", "value": 0.1}, row, meta]}
    report = {**REPORT, "labelled": {"rows": rows}, "suite": suite}
    results = others(report, made(Choice(3)), "mine", millis=0)
    probes = results["sparse_probing_sae_probes"]["eval_result_metrics"]
    assert probes["sae"]["sae_top_1_test_accuracy"] == pytest.approx((0.6 + 1.0) / 2)
    assert probes["llm"] == {"llm_test_accuracy": 0.9, "llm_test_auc": 0.45}
    variance = results["meta_structure_decoder_variance"]["eval_result_metrics"]["meta_structure"]
    assert variance["decoder_fraction_variance_explained"] == 0.3
    assert variance["final_reconstruction_mse"] == UNMEASURED
    assert flat(result(suite=suite))["l2_ratio"] == 0.97
    assert others(REPORT, made(Choice(3)), "mine", millis=0) == {}
    tokens_alone = {
        **REPORT,
        "labelled": {"rows": [probe("a", "sae", 1, 1.0) | {"level": "token"}]},
    }
    assert others(tokens_alone, made(Choice(3)), "mine", millis=0) == {}
