"""What an index says of its SAE as a whole, and of what attention's heads get."""

from pathlib import Path

import pytest

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.features import build
from saelab.features.reader import FeatureIndex
from saelab.origin import Origin
from tests import toy_index as toy
from tests.conftest import SECOND_HOOK


def test_the_share_of_each_head_is_told_of_attentions_z(tiny_cache: Path, tmp_path: Path):
    sae = SAE(32, 24, Choice(3), seed=1)
    sae.origin = Origin(SECOND_HOOK)
    summary = build.build(sae, Cache(tiny_cache), SECOND_HOOK, tmp_path / "f.db", n_tokens=500)
    assert summary["heads"] == 4 and summary["map"] is None
    with FeatureIndex(tmp_path / "f.db") as opened:
        for feature in range(24):
            row_HD = sae.W_dec.detach()[feature].view(4, 8)
            expected = row_HD.norm(dim=1) / row_HD.norm(dim=1).sum()
            assert opened.feature(feature).heads == pytest.approx(expected.tolist(), rel=1e-5)


def test_the_index_says_what_kind_of_dictionary_it_is_of(tmp_path: Path):
    summary = toy.build(tmp_path / "f.db", signed=True)
    assert (summary["kind"], summary["signed"]) == ("SAE", True)
    assert summary["sparsifier"] == "abstopk k=3" and summary["heads"] is None
    assert summary["hook"] == summary["target"] == toy.HOOK
    sae = SAE(toy.D, toy.F, Choice(2), transcoder=True)
    sae.origin = Origin(toy.HOOK, target="blocks.1.hook_mlp_out", sparsify="topk", k=2)
    options = {"tokenizer": toy.Tokenizer()}
    summary = build.build(sae, toy.Cache(), toy.HOOK, tmp_path / "t.db", **options)  # type: ignore[arg-type]
    assert (summary["kind"], summary["target"]) == ("transcoder", "blocks.1.hook_mlp_out")
    assert summary["sparsifier"] == "topk k=2" and summary["outputs"] is False
