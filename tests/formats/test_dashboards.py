"""Dashboards say what the index says: every value is recounted from the activations themselves, and
every key that the owners' readers ask for is there, and no other."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.formats import neuronpedia, sae_dashboard
from saelab.formats.sae_dashboard import N_BARS, N_INTERVALS, Source
from saelab.origin import Origin
from tests import toy_index as toy

# The keys of SAEDashboard 0.8.0 and of Neuronpedia's tables.
FEATURE = {
    *("feature_index", "neuron_alignment_indices", "neuron_alignment_values"),
    *("neuron_alignment_l1", "correlated_neurons_indices", "correlated_neurons_l1"),
    *("correlated_neurons_pearson", "correlated_features_indices", "correlated_features_l1"),
    *("correlated_features_pearson", "neg_str", "neg_values", "pos_str", "pos_values"),
    *("frac_nonzero", "freq_hist_data_bar_values", "freq_hist_data_bar_heights"),
    *("logits_hist_data_bar_heights", "logits_hist_data_bar_values", "n_prompts_total"),
    *("n_tokens_in_prompt", "dataset", "activations", "decoder_weights_dist", "vector"),
}
ACTIVATION = {
    *("bin_min", "bin_max", "bin_contains", "tokens", "values", "qualifying_token_index"),
}
ROW = FEATURE - {"feature_index", "n_prompts_total", "n_tokens_in_prompt", "dataset"} | {
    *("modelId", "layer", "index", "creatorId", "createdAt", "sourceSetName", "maxActApprox"),
    *("hasVector", "vectorLabel", "vectorDefaultSteerStrength", "hookName"),
    *("topkCosSimIndices", "topkCosSimValues"),
}
ACTIVATION_ROW = {
    *("id", "tokens", "index", "layer", "modelId", "maxValue", "maxValueTokenIndex", "minValue"),
    *("values", "creatorId", "dataSource", "dataIndex", "dfaValues", "dfaTargetIndex"),
    *("dfaMaxValue", "createdAt", "lossValues", "logitContributions", "binMin", "binMax"),
    *("binContains", "qualifyingTokenIndex"),
}
UPLOADED = {"index", "density", "activations", "explanations", "topLogits", "bottomLogits"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, sae = tmp_path_factory.mktemp("dashboards"), toy.sae()
    toy.build(folder / "features.db")
    source = Source.of(sae, model="toy-model", set="mine")
    with FeatureIndex(folder / "features.db") as index:
        sae_dashboard.write(sae, index, folder / "dashboard", source)
        neuronpedia.write(sae, index, folder / "np", source)
    return folder


def batch(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "dashboard" / "batch-0.json").read_text())


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in gzip.decompress(path.read_bytes()).splitlines()]


@torch.no_grad()
def coded() -> torch.Tensor:
    """[C, T, F] what the toy's features are on its tokens that count, by plain products."""
    sae, cache = toy.sae(), toy.Cache()
    pre_CTF = (cache.acts.double() - sae.b_dec) @ sae.W_enc.T.double() + sae.b_enc
    top = pre_CTF.topk(toy.K, dim=-1)
    code_CTF = torch.zeros_like(pre_CTF).scatter(-1, top.indices, top.values.relu())
    return code_CTF * cache.counted[..., None]


def wrong(feature: dict[str, Any], code_CT: torch.Tensor) -> list[str]:
    """What of a dashboard is not what a feature does on the corpus."""
    fired_N, said = code_CT[code_CT > 0], []
    largest = float(fired_N.max())
    if abs(feature["frac_nonzero"] - len(fired_N) / int(toy.Cache().counted.sum())) > 1e-6:
        said.append("density")
    heights = torch.tensor(feature["freq_hist_data_bar_heights"])
    edges = largest * torch.arange(1, len(heights) + 1) / len(heights)
    below = (fired_N[:, None] <= edges + 1e-6).sum(0)
    if (heights.cumsum(0) - below).abs().max() > 0.1 * len(fired_N):  # an eighth octave's width
        said.append("histogram")
    if abs(float(heights.sum()) - len(fired_N)) > 1e-3:
        said.append("histogram's total")
    contexts = {tuple(row): number for number, row in enumerate(_texts())}
    for activation in feature["activations"]:
        values, at = activation["values"], activation["qualifying_token_index"]
        truth_T = code_CT[contexts[tuple(activation["tokens"])]]
        if not torch.allclose(torch.tensor(values).double(), truth_T, atol=1e-5):
            said.append("values")
        if activation["bin_contains"] == -1:
            if abs(activation["bin_max"] - largest) > 1e-5 or values[at] != max(values):
                said.append("top")
            continue
        low, high = activation["bin_min"], activation["bin_max"]
        if not low - 1e-5 <= values[at] <= high + 1e-5:
            said.append("interval")
        share = float(((fired_N > low) & (fired_N <= high)).double().mean())
        if abs(share - activation["bin_contains"]) > 0.1:  # bins of the index, an eighth octave
            said.append("share")
    return said


def _texts() -> list[list[str]]:
    return [[toy.TEXTS[token] for token in row] for row in toy.Cache().tokens.tolist()]


def test_a_dashboard_says_what_the_features_do(folder: Path):
    code_CTF, whole = coded(), batch(folder)
    assert (whole["model_id"], whole["layer"], whole["sae_set"]) == ("toy-model", 1, "mine")
    numbers = [feature["feature_index"] for feature in whole["features"]]
    dead = json.loads((folder / "dashboard" / "skipped_indexes.json").read_text())
    assert toy.DEAD in dead["skipped_indexes"]
    assert sorted(numbers + dead["skipped_indexes"]) == list(range(toy.F))
    for feature in whole["features"]:
        assert feature.keys() == FEATURE
        assert all(activation.keys() == ACTIVATION for activation in feature["activations"])
        assert wrong(feature, code_CTF[..., feature["feature_index"]]) == []
        assert len(feature["freq_hist_data_bar_heights"]) == N_BARS
        bounds = [activation["bin_max"] for activation in feature["activations"]]
        assert bounds == sorted(bounds, reverse=True) and len(set(bounds)) <= N_INTERVALS
        assert sorted(feature["pos_values"], reverse=True) == feature["pos_values"]
        assert sorted(feature["neg_values"]) == feature["neg_values"]


def test_bad_twins_of_a_dashboard_are_caught(folder: Path):
    code_CTF, features = coded(), batch(folder)["features"]
    feature = max(features, key=lambda one: one["frac_nonzero"])
    code_CT = code_CTF[..., feature["feature_index"]]
    assert "values" in wrong(feature, code_CTF[..., 0 if feature["feature_index"] else 1])
    activations, heights = feature["activations"], feature["freq_hist_data_bar_heights"]
    twins = {
        "density": {"frac_nonzero": 100 * feature["frac_nonzero"]},
        "histogram": {"freq_hist_data_bar_heights": heights[::-1]},
        "histogram's total": {"freq_hist_data_bar_heights": [*heights[:-1], 2 + heights[-1]]},
        "top": {"activations": [{**activations[0], "qualifying_token_index": 0}]},
        "interval": {"activations": [{**activations[0], "bin_max": 0.1, "bin_contains": 0.5}]},
        "share": {"activations": [{**activations[-1], "bin_contains": 0.99}]},
    }
    for name, changed in twins.items():
        assert name in wrong({**feature, **changed}, code_CT), name


def test_neuronpedia_gets_the_same_in_its_own_words(folder: Path):
    features = {one["feature_index"]: one for one in batch(folder)["features"]}
    export = folder / "np" / "exports" / "toy-model" / "1-mine"
    rows = lines(export / "features" / "batch-0.jsonl.gz")
    activations = lines(export / "activations" / "batch-0.jsonl.gz")
    assert {frozenset(row) for row in rows} == {frozenset(ROW - {"activations"})}
    assert {frozenset(row) for row in activations} == {frozenset(ACTIVATION_ROW)}
    assert len({row["id"] for row in activations}) == len(activations)
    for row in rows:
        dashboard = features[row["index"]]
        assert all(row[name] == dashboard[name] for name in row.keys() & dashboard.keys())
        mine = [one for one in activations if one["index"] == row["index"]]
        assert row["maxActApprox"] == max(one["maxValue"] for one in mine)
        assert all(one["values"][one["maxValueTokenIndex"]] == one["maxValue"] for one in mine)
        given = [(one["tokens"], one["values"]) for one in dashboard["activations"]]
        assert [(one["tokens"], one["values"]) for one in mine] == given
    for name in ("release", "model", "sourceset", "source"):
        assert json.loads((export / f"{name}.jsonl").read_text())["creatorId"]


def test_an_upload_holds_what_the_server_takes(folder: Path):
    body = json.loads((folder / "np" / "upload" / "batch-0.json").read_text())
    assert (body["modelId"], body["source"]) == ("toy-model", "1-mine")
    assert len(body["features"]) <= sae_dashboard.PER_FILE
    for feature in body["features"]:
        assert feature.keys() == UPLOADED and 0 < feature["density"] <= 1
        for activation in feature["activations"]:
            assert len(activation["tokens"]) == len(activation["values"])
            share = activation["quantileFraction"]
            assert share is None or 0 <= share <= 1
    first = [one["quantileFraction"] for one in body["features"][0]["activations"]]
    assert None in first and any(first)


def test_what_neuronpedia_cannot_show_is_refused(tmp_path: Path):
    signed = toy.sae(signed=True)
    toy.build(tmp_path / "features.db", signed=True)
    for write in (sae_dashboard.write, neuronpedia.write):
        form = write.__module__.rpartition(".")[2]
        refused = pytest.raises(UsageError, match=f"as {form}: its values are signed")
        with FeatureIndex(tmp_path / "features.db") as index, refused:
            write(signed, index, tmp_path / "out", Source("toy", 1, "mine"))
    with pytest.raises(UsageError, match="'my set' is no name for Neuronpedia: --set"):
        Source.of(signed, set="my set")
    signed.origin = Origin("hook_embed")
    with pytest.raises(UsageError, match="reads no layer"):
        Source.of(signed, set="mine")
    assert [path.name for path in tmp_path.iterdir()] == ["features.db"]
