"""The report: rows known in advance come out as known, the schema holds, and a zoo of bad SAEs is
seen for what it is."""

from pathlib import Path

import jsonschema
import pytest
import torch

from saelab import SAE, models
from saelab.activations import Cache
from saelab.activations.source import all_but_first
from saelab.errors import UsageError
from saelab.evaluation import evaluate
from saelab.evaluation.downstream import (
    clean_run,
    divergence,
    next_token_loss,
    spliced_run,
)
from saelab.origin import Origin
from tests.conftest import HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def bridge(tiny_model: Path):
    """The tiny model."""
    return models.load(tiny_model)


@pytest.fixture(scope="module")
def measured(tiny_run: Path, tiny_cache: Path, bridge) -> dict:
    """The report of the session's run."""
    return evaluate(SAE.load(tiny_run), Cache(tiny_cache), bridge, n_tokens=1500)


def value(report: dict, name: str) -> float:
    """A metric's value."""
    return report[name]["value"]


def test_rows_known_in_advance_come_out_as_known(measured: dict):
    rows = measured["references"]
    assert (
        value(rows["identity"], "fvu") == 0
        and abs(value(rows["identity"], "ce_recovered") - 1) < 1e-5
    )
    assert abs(value(rows["identity"], "kl")) < 1e-5
    assert value(rows["zero"], "ce_recovered") == 0 and value(rows["zero"], "fvu") > 1
    assert value(rows["mean"], "ce_recovered_mean") == 0
    for ablated, row, key in (
        ("ce_mean_ablated", "zero", "ce_recovered_mean"),
        ("ce_ablated", "mean", "ce_recovered"),
    ):
        other = "ce_ablated" if row == "zero" else "ce_mean_ablated"
        recovered = (measured[ablated] - measured[other]) / (
            measured[ablated] - measured["ce_clean"]
        )
        assert value(rows[row], key) == pytest.approx(recovered)
    assert value(rows["mean"], "fvu") == pytest.approx(1.0, abs=0.05)
    assert 0 < value(rows["pca"], "fvu") < 1


def test_pca_is_the_best_linear_reconstruction_of_its_rank(measured: dict, tiny_cache: Path):
    cache = Cache(tiny_cache)
    rows = torch.cat([c.acts[:, 1:].flatten(0, 1) for c in cache.contexts(HOOK)])
    values = torch.linalg.svdvals(rows - rows.mean(0)).square()
    assert value(measured["references"]["pca"], "fvu") == pytest.approx(
        float(values[4:].sum() / values.sum()), abs=0.06
    )


def test_intervals_contain_their_values_and_the_sae_beats_its_null(measured: dict):
    for name in ("fvu", "l0", "cosine", "ce_recovered", "kl", "dead_fraction", "dense_fraction"):
        field = measured[name]
        assert field["low"] - 1e-9 <= field["value"] <= field["high"] + 1e-9, name
    assert value(measured, "fvu") < measured["fvu"]["null"]
    assert measured["kl"]["value"] < measured["kl"]["null"]
    assert measured["ce_recovered"]["null"] == 0


def test_the_report_is_what_the_schema_says(measured: dict):
    whole = {
        "schema": "saelab/report/1",
        "saelab_version": "0",
        "seed": 0,
        "command": "saelab eval",
        **measured,
    }
    check(whole, "report")
    with pytest.raises(jsonschema.ValidationError):
        check({**whole, "fvu": 0.1}, "report")


def test_fvu_and_l0_equal_a_dense_computation(measured: dict, tiny_run: Path, tiny_cache: Path):
    sae = SAE.load(tiny_run)
    x = torch.cat(
        [c.acts[:, 1:].flatten(0, 1) for c in Cache(tiny_cache).contexts(HOOK, "held_out")]
    )[: measured["tokens"]]
    with torch.no_grad():
        x_hat, z = sae(x), sae.encode(x).to_dense()
    fvu = (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()
    assert value(measured, "fvu") == pytest.approx(float(fvu), rel=1e-3)
    assert value(measured, "l0") == pytest.approx(float((z != 0).sum(1).float().mean()))
    assert value(measured, "dead_fraction") == pytest.approx(
        float(((z != 0).sum(0) == 0).float().mean())
    )


def test_a_splice_leaves_position_0_alone_and_replaces_the_others(bridge):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    clean, acts = clean_run(bridge, tokens, ["blocks.0.hook_out"])
    x = acts["blocks.0.hook_out"]
    counted = all_but_first(tokens)
    same = spliced_run(bridge, tokens, "blocks.0.hook_out", x, counted)
    torch.testing.assert_close(same, clean)
    only_first = x.clone()
    only_first[:, 0] = 0
    unmoved = spliced_run(bridge, tokens, "blocks.0.hook_out", only_first, counted)
    torch.testing.assert_close(unmoved, clean)
    later = x.clone()
    later[:, 5:] = 0
    changed = spliced_run(bridge, tokens, "blocks.0.hook_out", later, counted)
    torch.testing.assert_close(changed[:, :5], clean[:, :5])
    assert not torch.allclose(changed[:, 5:], clean[:, 5:])


def test_losses_are_of_predictions_between_tokens_that_count(bridge):
    tokens = torch.randint(1, 257, (3, 12), generator=torch.Generator().manual_seed(1))
    counted, lengths = all_but_first(tokens), (12, 7, 4)
    alone, spliced_alone = [], []
    for row, length in enumerate(lengths):
        counted[row, length:] = False
        one = tokens[row : row + 1, :length]
        clean, acts = clean_run(bridge, one, ["blocks.0.hook_out"])
        x = acts["blocks.0.hook_out"] * 0.5
        spliced = spliced_run(bridge, one, "blocks.0.hook_out", x, all_but_first(one))
        alone.append(next_token_loss(clean, one, all_but_first(one)))
        spliced_alone.append(divergence(clean, spliced, all_but_first(one)))
    clean, acts = clean_run(bridge, tokens, ["blocks.0.hook_out"])
    spliced = spliced_run(
        bridge, tokens, "blocks.0.hook_out", acts["blocks.0.hook_out"] * 0.5, counted
    )
    assert len(torch.cat(alone)) == sum(length - 2 for length in lengths)
    torch.testing.assert_close(next_token_loss(clean, tokens, counted), torch.cat(alone))
    kl = divergence(clean, spliced, counted)
    torch.testing.assert_close(kl, torch.cat(spliced_alone), rtol=1e-3, atol=1e-5)
    assert len(next_token_loss(clean, tokens, all_but_first(tokens))) > len(torch.cat(alone))


def test_a_splice_into_heads_restores_their_shape(bridge):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    name = models.resolve_hook(bridge, "blocks.1.attn.hook_z")
    clean, acts = clean_run(bridge, tokens, [name])
    torch.testing.assert_close(
        spliced_run(bridge, tokens, name, acts[name], all_but_first(tokens)), clean
    )


def test_a_zoo_of_bad_saes_is_seen_for_what_it_is(
    measured: dict, tiny_run: Path, tiny_cache: Path, bridge
):
    good = SAE.load(tiny_run)

    def spoiled(**changes) -> dict:
        sae = SAE.load(tiny_run)
        for name, change in changes.items():
            getattr(sae, name).data.copy_(change)
        return evaluate(sae, Cache(tiny_cache), bridge, n_tokens=800)

    shuffled = good.W_dec[
        torch.randperm(good.n_features, generator=torch.Generator().manual_seed(0))
    ]
    rotation = torch.linalg.qr(torch.randn(32, 32, generator=torch.Generator().manual_seed(0))).Q
    for name, report in {
        "shrunk": spoiled(W_dec=good.W_dec * 0.3),
        "permuted": spoiled(W_dec=shuffled),
        "rotated": spoiled(W_dec=good.W_dec @ rotation),
    }.items():
        assert value(report, "fvu") > 1.2 * value(measured, "fvu"), name
        assert value(report, "kl") > value(measured, "kl"), name
    silent = spoiled(b_enc=torch.full((64,), -100.0))
    assert value(silent, "dead_fraction") == 1.0 and value(silent, "l0") == 0


def test_an_sae_of_another_width_is_refused(tiny_cache: Path, bridge):
    from saelab import Choice

    sae = SAE(16, 64, Choice(4))
    sae.origin = Origin(HOOK)
    with pytest.raises(UsageError, match=r"d_model=16, blocks\.0\.hook_resid_post of the cache 32"):
        evaluate(sae, Cache(tiny_cache), bridge)
