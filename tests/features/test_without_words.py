"""An index of one's own arrays: no tokenizer, no model; all else is there."""

import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.activations.chosen import chosen
from saelab.activations.from_arrays import from_arrays
from saelab.errors import UsageError
from saelab.features import build
from saelab.features.more import examples
from saelab.features.reader import FeatureIndex


def test_columns_that_need_words_are_absent_and_all_else_is_there(tmp_path):
    x_ND = torch.randn(1500, 12, generator=torch.Generator().manual_seed(0))
    cache = Cache.write(tmp_path / "cache", from_arrays(x_ND, context=50, dtype="float32"))
    sae = SAE(12, 40, Choice(3))
    summary = build.build(sae, cache, "acts", tmp_path / "features.db", plane=True)
    assert summary["tokens"] is False and summary["outputs"] is False and summary["map"]
    with FeatureIndex(tmp_path / "features.db") as opened:
        rows = opened.table(limit=40).rows
        assert {tuple(row.tokens) for row in rows} == {()} and rows[0].interest > 0
        known = opened.feature(rows[0].feature)
        assert known.by_total == known.promoted == [] and known.neighbours and known.histogram
        shown = opened.examples(rows[0].feature)
        assert shown and shown[0].texts[0].startswith("⟨") and shown[0].document
        # A token is the number of its row.
        row = int(shown[0].texts[shown[0].position].strip("⟨⟩ "))
        value = sae.frozen().encode(x_ND[row : row + 1]).to_dense()[0, rows[0].feature]
        assert float(value.detach()) == shown[0].value
        assert opened.search("self") == [] == opened.passages("self") == opened.tokens("self")
        named = {"labels": {7: "a label"}}
        assert [hit.feature for hit in opened.search("label", texts=named)] == [7]
        assert examples(sae, cache, opened, rows[0].feature, 2)


def test_contexts_that_a_cache_does_not_have_are_named(tmp_path):
    x_ND = torch.randn(200, 4)
    cache = Cache.write(tmp_path / "cache", from_arrays(x_ND, context=50))
    whole = [chunk for chunk in cache.contexts("acts")]
    (last,) = chosen(cache, "acts", "train", [len(whole[0].tokens) - 1])
    assert torch.equal(last.acts[0], whole[0].acts[-1])
    with pytest.raises(UsageError, match=r"has train contexts 0 to .*, not 99"):
        list(chosen(cache, "acts", "train", [0, 99]))
