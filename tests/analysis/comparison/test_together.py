"""Several SAEs in one pass: a planted loss is found, and the numbers are those of their reports."""

import copy

import numpy as np
import pytest
import torch

from saelab import SAE, matching, models
from saelab.activations import Cache
from saelab.analysis.comparison import (
    configurations,
    differences,
    measure,
    sentences,
    starts,
)
from saelab.errors import UsageError
from saelab.evaluation import evaluate, metrics
from saelab.evaluation.measurement import per_token
from saelab.origin import Origin
from saelab.statistics import DocumentSums, paired, verdict
from tests.conftest import HOOK


@pytest.fixture(scope="module")
def pair(tiny_run, tiny_cache, tiny_model):
    """The session's run and itself with half of its bias gone, on the same tokens."""
    sae, cache, model = SAE.load(tiny_run), Cache(tiny_cache), models.load(tiny_model)
    worse = copy.deepcopy(sae)
    worse.b_dec.data *= 0.5
    saes = {"a": sae, "b": worse}
    return saes, cache, model, measure(saes, cache, model, n_tokens=1500)


def test_the_values_are_those_of_the_report(pair):
    saes, cache, model, together = pair
    report = evaluate(saes["a"], cache, model, n_tokens=1500)
    rows = differences.differences(together, "a", "b")
    assert {row.metric.key: row.first for row in rows} == pytest.approx(
        {row.metric.key: report[row.metric.key]["value"] for row in rows}
    )
    by_metric = {row.metric.key: row.as_dict() for row in rows}
    assert by_metric["fvu"]["verdict"] == "worse" and by_metric["fvu"]["value"] > 0
    assert by_metric["l0"]["verdict"] is None
    assert by_metric["dead_fraction"]["verdict"] == "not told apart"


def test_an_sae_and_itself_are_not_told_apart(pair):
    saes, cache, model, _ = pair
    same = {"a": saes["a"], "b": saes["a"]}
    together = measure(same, cache, model, n_tokens=600, training=False)
    rows = [row.as_dict() for row in differences.differences(together, "a", "b")]
    assert {row["verdict"] for row in rows} == {"not told apart", None}
    assert all(row["value"] == 0 for row in rows)
    codes = together.codes
    assert abs(codes["a"] - codes["b"]).max() == 0
    assert codes["a"].shape[0] == together.tables["a"]["tokens"].sum()


@torch.no_grad()
def test_noise_of_a_hundredth_of_the_errors_energy_is_found(tiny_run, tiny_cache):
    sae, cache = SAE.load(tiny_run), Cache(tiny_cache)
    sums = {name: DocumentSums() for name in ("plain", "noisy")}
    generator = torch.Generator().manual_seed(0)
    for chunk in cache.counted(HOOK, "held_out"):
        x_hat_ND = sae(chunk.x)
        noise_ND = torch.randn(x_hat_ND.shape, generator=generator)
        noise_ND *= ((chunk.x - x_hat_ND).norm(dim=1) / noise_ND.norm(dim=1))[:, None] * 0.1
        none_N = torch.zeros(len(chunk.x))
        for name, each in (("plain", x_hat_ND), ("noisy", x_hat_ND + noise_ND)):
            sums[name].add(chunk.documents, per_token(chunk.x, each, none_N))
    tables = {name: each.table() for name, each in sums.items()}
    n_documents = len(sums["plain"].documents)
    change = paired(tables["noisy"], tables["plain"], metrics.fvu, n_documents)
    assert verdict(change, "lower") == "worse"
    order = torch.randperm(n_documents, generator=generator).numpy()
    shuffled = {name: column[order] for name, column in tables["noisy"].items()}
    lost = paired(shuffled, tables["plain"], metrics.fvu, n_documents)
    assert verdict(lost, "lower") == "not told apart"


def test_saes_of_two_places_are_refused(pair):
    saes, cache, model, _ = pair
    elsewhere = copy.copy(saes["a"])
    elsewhere.origin = Origin(hook="blocks.1.hook_out")
    with pytest.raises(UsageError, match=f"reads blocks.1.hook_out, not {HOOK}"):
        measure({"a": saes["a"], "b": elsewhere}, cache, model)


def seeded(sae, seed, k):
    twin = copy.copy(sae)
    twin.origin = Origin(hook=HOOK, seed=seed, k=k)
    return twin


def test_configurations_are_compared_over_the_seeds_that_both_have(pair):
    sae = pair[0]["a"]
    saes = {f"k{k}s{s}": seeded(sae, s, k) for k in (4, 8) for s in range(4) if (k, s) != (8, 3)}
    values = {name: {"fvu": 0.1 + 0.001 * i} for i, name in enumerate(saes)}
    (compared,) = configurations.compared(saes, values)
    assert compared["first"] == ["k4s0", "k4s1", "k4s2", "k4s3"]
    (row,) = compared["differences"]
    assert row["n"] == 3 and row["value"] == pytest.approx(0.004) and row["verdict"] == "worse"
    assert row["pairing"] == "matched" and row["least"] == pytest.approx(0, abs=1e-9)
    told = sentences.of_configurations(compared)
    assert told == "These two configurations, over 3 seeds each (matched): B is worse in FVU."
    two = {name: saes[name] for name in ("k4s0", "k4s1", "k8s0", "k8s1")}
    (compared,) = configurations.compared(two, values)
    assert compared["differences"][0]["verdict"] == "spread not known"
    assert "spread not known, with 2 and 2 seeds; 3 of each" in sentences.of_configurations(
        compared
    )
    alone = {name: saes[name] for name in ("k4s0", "k8s0")}
    assert configurations.compared(alone, values) == []


def test_runs_that_differ_by_more_than_seed_and_start_are_no_group(pair):
    def of(**fields):
        twin = copy.copy(pair[0]["a"])
        twin.origin = Origin(hook=HOOK, k=4, **fields)
        return twin

    saes = {
        "a0": of(seed=0, start=11, configuration="x"),
        "a1": of(seed=1, start=12, configuration="x"),
        "other rate": of(seed=2, start=13, configuration="y"),
    }
    assert configurations.groups(saes) == [["a0", "a1"], ["other rate"]]


def test_equal_starts_are_told_and_what_stayed_there_is_counted(pair):
    sae = pair[0]["a"]
    began = SAE(sae.d_model, sae.n_features, sae.sparsify, seed=5)
    began.origin = Origin(hook=HOOK, seed=0, start=5)
    half = copy.deepcopy(began)
    half.W_dec.data[::2] = matching.random_rows(len(half.W_dec), sae.d_model, 7)[::2]
    half.origin = Origin(hook=HOOK, seed=1, start=5)
    fired_F = np.ones(sae.n_features, dtype=int)
    said = starts.beside(began, half, fired_F, fired_F)
    assert said["same"] and said["first"]["value"] == 1 and said["second"]["value"] == 0.5
    assert said["first"]["null"] < 0.1
    half.origin = Origin(hook=HOOK, seed=1, start=6)
    said = starts.beside(began, half, fired_F, fired_F)
    assert not said["same"] and said["second"]["value"] < 0.1
