"""What an index says of other SAEs: nearest rows, and partners one to one."""

import pytest
import torch

from apps.browser import facts, tables
from saelab import matching
from saelab.features import build
from saelab.features.reader import FeatureIndex
from tests import toy_index as toy


def test_the_other_seed_is_compared_over_live_features(tmp_path):
    summary = toy.build(tmp_path / "features.db")
    other = summary["others"][0]
    with FeatureIndex(tmp_path / "features.db") as opened:
        matches = [opened.matches(feature)[0] for feature in range(toy.F)]
    assert [match.nearest for match in matches[: toy.F // 2]] == list(range(toy.F // 2 - 1, -1, -1))
    assert [match.cosine for match in matches[: toy.F // 2]] == pytest.approx([1] * (toy.F // 2))
    assert all(match.found == (match.partner_cosine > 0.7) for match in matches)
    assert sum(match.found for match in matches) >= toy.F // 3
    live = [match.found for feature, match in enumerate(matches) if feature != toy.DEAD]
    assert other["share"] == pytest.approx(sum(live) / len(live))
    assert sorted(match.partner for match in matches) == list(range(toy.F))  # one to one


def test_four_features_of_one_direction_share_the_nearest_and_one_of_them_is_found(tmp_path):
    made, other = toy.sae(), toy.sae(seed=9)
    axis_D = torch.eye(toy.D)[0]
    made.W_dec.data[:4] = axis_D
    other.W_dec.data[:, 0] = 0
    other.W_dec.data[7] = axis_D
    path = tmp_path / "features.db"
    options = {"tokenizer": toy.Tokenizer(), "others": [("once", other)]}
    build.build(made, toy.Cache(7), toy.HOOK, path, **options)
    with FeatureIndex(path) as opened:
        four = [opened.matches(feature)[0] for feature in range(4)]
    assert [match.nearest for match in four] == [7] * 4
    assert [match.cosine for match in four] == pytest.approx([1] * 4)
    assert len({match.partner for match in four}) == 4
    assert sum(match.partner == 7 and match.found for match in four) == 1


def test_dictionaries_too_wide_to_be_matched_have_a_nearest_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(matching, "MOST", toy.F**2 - 1)
    summary = toy.build(tmp_path / "features.db")
    assert summary["others"][0]["share"] is None
    with FeatureIndex(tmp_path / "features.db") as opened:
        match = opened.matches(0)[0]
    assert (match.found, match.partner, match.partner_cosine) == (None, None, None)
    assert match.cosine == pytest.approx(1, abs=1e-5)
    assert "nearest in seed 9" in facts.matches([match])
    assert "also found by" not in tables.indexed(summary)
