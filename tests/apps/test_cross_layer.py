"""Cross-layer transcoders in verbs and pages: each layer has an index, and one graph has all."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from apps.browser import PLACES
from apps.cli import main
from saelab import Cache, CrossLayerTranscoder, opening
from saelab.features.reader import FeatureIndex
from saelab.files import read_json
from saelab.outdated import outdated
from saelab.runs import RunFolder
from tests.apps.pages import opened_page
from tests.apps.test_browse import body
from tests.evaluation.test_several_hooks import READS, WRITES, runs  # noqa: F401
from tests.schemas import check

LAYER = "layer {} of a cross-layer transcoder of 2 layers"


@pytest.fixture(scope="module")
def clt(runs: dict[str, Path]) -> Path:  # noqa: F811
    """A run of a cross-layer transcoder of the tiny model, indexed."""
    folder = runs["clt"]
    words = ["index", str(folder), "--tokens", "2k", "--compare", str(folder)]
    assert main(words) == 0
    return folder


def test_each_layer_has_an_index_of_what_its_features_do(clt: Path, capsys):
    whole, cache = CrossLayerTranscoder.load(clt), Cache(clt.parent / "cache")
    fired_F, n_tokens = np.zeros(48, int), 0
    for chunk in cache.contexts(whole.origin.hook, "train"):
        for acts_TD, counts_T in zip(chunk.acts, chunk.counted, strict=True):
            if n_tokens >= 2000:
                break
            code = whole.encode(acts_TD[counts_T])
            fired_F += np.bincount(code.features[code.values != 0], minlength=48)
            n_tokens += len(acts_TD[counts_T])
    for i, folder in enumerate(RunFolder(clt).layers()):
        with FeatureIndex(folder.features) as index:
            assert index.summary["kind"] == LAYER.format(i)
            assert index.summary["n_tokens"] == n_tokens
            mine_F = [index.feature(number).row.fired for number in range(24)]
            assert mine_F == fired_F[24 * i : 24 * (i + 1)].tolist()
            assert mine_F != fired_F[24 * (1 - i) :][:24].tolist()
            assert index.summary["others"][0]["median"] == pytest.approx(1)
            assert index.summary["outputs"]
    opened = opening.open(folder.path, needs=("cache",))
    assert opened.cache.path == cache.path.resolve()
    capsys.readouterr()
    assert main(["eval", str(folder.path)]) == 2
    assert "explains no output alone: evaluate the whole" in capsys.readouterr().err


def test_what_is_printed_adds_up_the_layers(clt: Path, capsys):
    assert main(["index", str(clt), "--tokens", "500", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["n_features"] == 48
    assert [one["n_features"] for one in printed["layers"]] == [24, 24]
    assert printed["unseen"] == sum(one["unseen"] for one in printed["layers"])
    assert main(["index", str(clt), "--tokens", "500"]) == 0
    assert f"2 layers of {clt}: 48 features over" in capsys.readouterr().out


def test_layers_of_an_earlier_training_are_named(clt: Path, tmp_path: Path):
    run = RunFolder(shutil.copytree(clt, tmp_path / "clt"))
    assert outdated(run) == [] and outdated(run.layer(0)) == []
    whole = CrossLayerTranscoder.load(clt)
    whole.b_dec.data[0] += 1
    whole.save(run.sae)
    assert outdated(run) == ["layer-0/features.db", "layer-1/features.db"]
    assert outdated(run.layer(0)) == ["features.db"]


def test_pages_say_what_a_layer_is(clt: Path, monkeypatch):
    monkeypatch.setenv(PLACES, json.dumps([str(clt)]))
    whole = opened_page(run="clt")
    assert "each layer's features are a run of their own: layer-0, layer-1" in body(whole)
    layer = opened_page(run="layer-0")
    shown = body(layer)
    assert LAYER.format(0) in shown and ", ".join(WRITES) in shown and READS[0] in shown
    feature = opened_page("feature", run="layer-0", feature="3")
    assert WRITES[1] in body(feature)


def test_a_graph_of_all_layers_leads_to_their_pages(clt: Path, tmp_path: Path, capsys):
    words = ["graph", "--run", str(clt.parent / "clt"), "--prompt", "abcab", "--supernodes", "500"]
    assert main([*words, "--ablated", "3", "--out", str(tmp_path / "g"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "graphs")
    assert result["faithfulness"]["held"]["slope"]["value"] == pytest.approx(1, abs=1e-2)
    assert not any("no transcoder for layer" in note for note in result["notes"])
    folders = [str((clt / f"layer-{i}").resolve()) for i in range(2)]
    assert list(result["runs"].values()) == folders
    assert [hook.replace("mlp.hook_out", "hook_mlp_out") for hook in result["runs"]] == WRITES
    foreign = read_json(tmp_path / "g" / "circuit-tracer" / "prompt-0.json")
    assert {node["layer"] for node in foreign["nodes"]} <= {"E", "0", "1", "3"}


def test_layers_in_a_run_are_no_further_members_of_a_set(clt: Path, tmp_path: Path, capsys):
    words = ["graph", "--prompt", "abcab", "--ablated", "0", "--out", str(tmp_path / "g")]
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "clt").symlink_to(clt)
    assert main([*words, "--run", str(tmp_path / "set")]) == 0
    assert main([*words, "--run", str(clt / "layer-1")]) == 2
    assert "explains no output alone: name the whole" in capsys.readouterr().err
