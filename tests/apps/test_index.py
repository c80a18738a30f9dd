"""`saelab index` on a run that was really captured and trained."""

import json
import shutil

import numpy as np
import pytest
import torch

from apps.cli import main
from saelab import opening
from saelab.errors import UsageError
from saelab.features.listing import Keep
from saelab.features.more import examples
from saelab.features.reader import FeatureIndex
from saelab.files import write_json


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run, without an index."""
    copy = tmp_path_factory.mktemp("index") / "tiny"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("features.db", "checkpoints"))
    return copy


def test_index_writes_what_it_prints(run, tiny_run, capsys):
    assert main(["index", str(run), "--compare", str(tiny_run), "--tokens", "2k", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert printed["schema"] == "saelab/index/1"
    assert printed["n_tokens"] >= 2000
    assert printed["others"][0]["share"] == 1.0
    with FeatureIndex(run / "features.db") as opened:
        assert all(
            printed[key] == opened.summary[key]
            for key in ("n_tokens", "n_contexts", "n_features", "unseen", "others")
        )
        live = opened.table("density").rows[0]
        example = opened.examples(live.feature)[0]
        assert example.document.endswith(".txt")
        shown = "".join(example.texts[1:]).replace("<|endoftext|>", "")
        assert shown.islower() and set(shown) <= set("abcdefghijklmnopqrstuvwxyz0123456789. \n")
        assert len(opened.feature(live.feature).promoted) == 10


def test_index_tells_people_how_to_look_at_it(run, capsys):
    assert main(["index", str(run), "--tokens", "1k", "--split", "held_out"]) == 0
    printed = capsys.readouterr().out
    assert "64 features over" in printed
    assert printed.splitlines()[-1] == f"next: saelab browse {run}"
    with FeatureIndex(run / "features.db") as opened:
        assert opened.summary["split"] == "held_out"


def test_an_unknown_split_is_refused(run, capsys):
    assert main(["index", str(run), "--split", "test"]) == 2
    error = capsys.readouterr().err
    assert "train" in error and "held_out" in error


def test_a_run_at_another_hook_is_refused(run, tiny_run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(tiny_run, other)
    header = json.loads((other / "sae" / "sae.json").read_text())
    header["origin"]["hook"] = "blocks.1.hook_out"
    write_json(other / "sae" / "sae.json", header)
    assert main(["index", str(run), "--compare", str(other)]) == 2
    assert "it reads blocks.1.hook_out, not" in capsys.readouterr().err


def test_a_map_is_made_on_demand_and_filters(run, capsys):
    assert main(["index", str(run), "--tokens", "1k"]) == 0
    with FeatureIndex(run / "features.db") as opened:
        assert opened.map() is None
    assert main(["index", str(run), "--tokens", "1k", "--map"]) == 0
    assert "a map of the directions by t-SNE" in capsys.readouterr().out
    with FeatureIndex(run / "features.db") as opened:
        method, places_F2 = opened.map()
        assert method == opened.summary["map"] == "t-SNE"
        right = {*opened.order(keep=Keep(box=(0, 1, -1, 1))).tolist()}
        assert right == {*np.flatnonzero(places_F2[:, 0] >= 0)} and 0 < len(right) < 64


def test_more_examples_come_from_the_cache(run, capsys):
    assert main(["index", str(run), "--tokens", "4k"]) == 0
    _, sae, cache, _ = opening.open(run, needs=("cache",))
    with FeatureIndex(run / "features.db") as opened:
        feature = int(opened.order("density")[0])
        shown = {(e.context, e.position) for e in opened.examples(feature)}
        more = examples(sae, cache, opened, feature, 5)
        assert 0 < len(more) <= 5
        assert not {(e.context, e.position) for e in more} & shown
        chunks = [chunk for chunk in cache.contexts(sae.origin.hook)]
        acts_CTD, tokens_CT = (torch.cat([c[at] for c in chunks]) for at in (1, 0))
        for example in more:
            dense_TF = sae.frozen().encode(acts_CTD[example.context]).to_dense().detach()
            dense_TF[0] = 0
            assert example.activations == pytest.approx(dense_TF[:, feature].tolist(), rel=1e-5)
            assert example.value == pytest.approx(example.activations[example.position])
            ids = tokens_CT[example.context].tolist()
            assert example.texts == [opened.vocabulary.text(token) for token in ids]
        with torch.no_grad():
            sae.W_enc *= 1.5
        with pytest.raises(
            UsageError, match=rf"is not what .*features.db was made of: feature {feature}"
        ):
            examples(sae, cache, opened, feature, 5)
