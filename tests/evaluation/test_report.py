"""The report: rows known in advance come out as known, the schema holds, and a zoo of bad SAEs is
seen for what it is."""

from pathlib import Path

import jsonschema
import pytest
import torch

from saelab import SAE, Choice, models
from saelab.activations import Cache
from saelab.activations.source import all_but_first
from saelab.errors import UsageError
from saelab.evaluation import evaluate
from saelab.evaluation.downstream import Splice, spliced
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
    for name in ("fvu", "l0", "cosine", "ce_recovered", "kl", "unseen_fraction", "dense_fraction"):
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
    assert value(measured, "unseen_fraction") == pytest.approx(
        float(((z != 0).sum(0) == 0).float().mean())
    )


def test_a_splice_leaves_what_does_not_count_alone_and_replaces_the_others(bridge):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    counted = all_but_first(tokens)
    splice = Splice(bridge, tokens, HOOK)
    only_first, later = splice.acts[HOOK].clone(), splice.acts[HOOK].clone()
    only_first[:, 0] = 0
    later[:, 5:] = 0
    given = {"same": splice.acts[HOOK], "only first": only_first, "later": later}
    compared = spliced(splice, given, counted)
    assert compared["same"].kl.abs().max() < 1e-6
    torch.testing.assert_close(compared["only first"].loss, compared["clean"].loss)
    changed = compared["later"].kl.view(2, -1)  # of positions 1 to 10
    assert changed[:, :4].abs().max() < 1e-6 and changed[:, 4:].mean() > 1e-3


def test_losses_are_of_predictions_between_tokens_that_count(bridge):
    tokens = torch.randint(1, 257, (3, 12), generator=torch.Generator().manual_seed(1))
    counted, lengths = all_but_first(tokens), (12, 7, 4)
    alone = []
    for row, length in enumerate(lengths):
        counted[row, length:] = False
        one = tokens[row : row + 1, :length]
        splice = Splice(bridge, one, HOOK)
        alone.append(spliced(splice, {"half": splice.acts[HOOK] / 2}, all_but_first(one)))
    splice = Splice(bridge, tokens, HOOK)
    together = spliced(splice, {"half": splice.acts[HOOK] / 2}, counted)
    for name in ("clean", "half"):
        losses = torch.cat([each[name].loss for each in alone])
        assert len(losses) == sum(length - 2 for length in lengths)
        torch.testing.assert_close(together[name].loss, losses)
        kls = torch.cat([each[name].kl for each in alone])
        torch.testing.assert_close(together[name].kl, kls, rtol=1e-3, atol=1e-5)
    unmasked = spliced(splice, {}, all_but_first(tokens))
    assert len(unmasked["clean"].loss) > len(losses)


def test_a_splice_into_heads_restores_their_shape(bridge):
    tokens = torch.randint(1, 257, (2, 12), generator=torch.Generator().manual_seed(0))
    splice = Splice(bridge, tokens, "blocks.1.attn.hook_z")
    assert splice.acts[splice.hook].ndim == 3
    torch.testing.assert_close(splice.ending(splice.acts[splice.hook]), splice.clean)


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
    sae = SAE(16, 64, Choice(4))
    sae.origin = Origin(HOOK)
    with pytest.raises(UsageError, match=r"d_model=16, blocks\.0\.hook_resid_post of the cache 32"):
        evaluate(sae, Cache(tiny_cache), bridge)


def test_dead_features_are_those_that_no_training_token_fires(
    measured: dict, tiny_run: Path, tiny_cache: Path
):
    cache, sae = Cache(tiny_cache), SAE.load(tiny_run)
    x = torch.cat([chunk.x for chunk in cache.counted(HOOK, "train")])
    dead = ((sae.encode(x).to_dense() != 0).sum(0) == 0).float().mean()
    assert value(measured, "dead_fraction") == pytest.approx(float(dead))
    assert measured["dead_tokens"] == len(x) == cache.n_tokens("train")
    assert measured["dead_fraction"]["low"] is None  # a count, no sample of documents
    assert value(measured, "unseen_fraction") >= value(measured, "dead_fraction")


@pytest.mark.parametrize("k", [2, 8])
def test_a_threshold_sae_stands_beside_a_pca_of_its_own_l0(
    k: int, tiny_run: Path, tiny_cache: Path, bridge
):
    cache, sae = Cache(tiny_cache), SAE.load(tiny_run)
    sae.sparsify = Choice(k, over="batch")
    sae.calibrate([chunk.x for chunk in cache.counted(HOOK, "train")])
    report = evaluate(sae.frozen(), cache, bridge, n_tokens=800)
    pca = report["references"]["pca"]
    assert value(pca, "l0") == round(value(report, "l0")) == k
    x = torch.cat([chunk.x for chunk in cache.counted(HOOK, "train")])
    values = torch.linalg.svdvals(x - x.mean(0)).square()
    left = float(values[k:].sum() / values.sum())
    assert value(pca, "fvu") == pytest.approx(left, abs=0.06)
    assert report["dense_fraction"]["null"] is not None  # levels are no excuse
    widths = {name: value(row, "l0") for name, row in report["references"].items()}
    assert widths == {"zero": 0, "mean": 0, "identity": 32, "pca": k}
