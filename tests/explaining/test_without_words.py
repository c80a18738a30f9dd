"""Explanations of one's own arrays: those that need no tokenizer, and why there are no others."""

import numpy as np
import pytest
import torch

from saelab import SAE, Choice
from saelab.activations import Cache
from saelab.activations.from_arrays import from_arrays
from saelab.explaining import families
from saelab.explaining.explain import explain, explained
from saelab.origin import Origin
from tests.explaining import planted


def test_rules_name_ids_and_positions_where_no_token_reads_anything():
    read = planted.corpus()
    rules = [lambda texts, at: texts[at] == "self", lambda texts, at: 5 <= at < 9]
    fires = planted.firings(read, rules)
    told = explained(read, fires, families.every(read, None))
    said = [told.by_feature[unit].text for unit in (0, 1)]
    assert said == ['on "⟨1⟩"', "at positions 5 to 8 of the context"]
    assert told.by_feature[0].score.value == 1.0 and told.by_feature[0].token.value == 1.0
    named = {family.name for family in families.every(read, None)}
    assert named == {*families.OF_TOKENS, "position"}
    assert set(families.absent(read, None)) == {*families.OF_TEXT, "output token"}
    every = {family.name for family in planted.families(read, np.zeros((2, 1), np.int64))}
    assert every - named == set(families.absent(read, None))  # all that is absent is told
    assert families.absent(read, planted.WORDS, np.zeros((2, 1))) == {}  # known-bad twin


@pytest.fixture(scope="module")
def arrays(tmp_path_factory: pytest.TempPathFactory):
    """A cache of contexts in whose first ten rows the first number is large, and an SAE of it."""
    draw = torch.Generator().manual_seed(0)
    x_CTD = 0.1 * torch.randn(120, 32, 8, generator=draw)
    x_CTD[:, :10, 0] += 2
    path = tmp_path_factory.mktemp("explained") / "cache"
    cache = Cache.write(path, from_arrays(x_CTD, dtype="float32"))
    sae = SAE(8, 8, Choice(1))
    for weights in (sae.W_enc, sae.W_dec):
        weights.data.copy_(torch.eye(8))
    sae.b_enc.data[0] = -1.0
    sae.origin = Origin(hook="acts", target="acts")
    return sae, cache


def test_arrays_of_rows_are_explained_by_position_alone(arrays):
    told, *_ = explain(*arrays, None)
    first = told.by_feature[0]
    assert first.text == "at positions 0 to 9 of the context" and first.score.value == 1.0
    assert first.token.value is None and told.means["token"].value is None
    assert told.means["rule"].value is not None
    assert set(told.absent) == {*families.OF_TOKENS, *families.OF_TEXT, "output token"}
    assert "own number" in told.absent["bigram"] and "no tokenizer" in told.absent["indent"]
