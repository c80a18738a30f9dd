"""An attention score split over features at both ends: exact sums, predicted ablations,
refusals."""

from pathlib import Path

import pytest
import torch

from saelab import models
from saelab.analysis import frozen
from saelab.analysis.attention.query_key import check, query_key
from saelab.errors import UsageError
from tests.analysis.dictionaries import RESIDUAL, dictionary, random_task

TOKENS = random_task().clean[:1]


@pytest.fixture(scope="module")
def model(tiny_model: Path):
    return models.load(tiny_model)


def attention_score(
    model, held: frozen.Frozen, x_CTD: torch.Tensor, head: int, dest: int, src: int
) -> float:
    """q . k / sqrt(8) of layer 1 with the residual stream given."""
    found = frozen.run(
        model, held, {RESIDUAL: x_CTD}, ["blocks.1.attn.hook_q", "blocks.1.attn.hook_k"]
    )
    q, k = (
        found[f"blocks.1.attn.hook_{part}"].view(7, 4, 8)[at, head]
        for part, at in (("q", dest), ("k", src))
    )
    return float(q.double() @ k.double() / 8**0.5)


@pytest.mark.parametrize(("dest", "src"), [(6, 3), (5, 5), (4, 0)])
def test_the_parts_add_up_to_the_score(model, dest: int, src: int):
    held, sae = frozen.freeze(model, TOKENS), dictionary(RESIDUAL, seed=4)
    found = query_key(model, held, sae, 1, 2, dest, src)
    x_CTD = frozen.run(model, held, {}, [RESIDUAL])[RESIDUAL]
    assert float(found.scores.sum()) == pytest.approx(
        attention_score(model, held, x_CTD, 2, dest, src), rel=1e-4, abs=1e-5
    )
    assert found.scores.shape == (len(found.queries) + 2, len(found.keys) + 2)
    assert len(found.keys) == (5 if src else 0)


def test_a_row_foretells_what_ablating_its_feature_does(model):
    held, sae = frozen.freeze(model, TOKENS), dictionary(RESIDUAL, seed=4)
    found = query_key(model, held, sae, 1, 2, 6, 3)
    x_CTD = frozen.run(model, held, {}, [RESIDUAL])[RESIDUAL]
    with torch.no_grad():
        value = sae.encode(x_CTD[0, 6:7]).values[1]
        x_CTD[0, 6] -= value * sae.W_dec[found.queries[1]]
    change = attention_score(model, held, x_CTD, 2, 6, 3) - found.score
    assert change == pytest.approx(-float(found.scores[1].sum()), rel=1e-3, abs=1e-5)


def test_impossible_pairs_and_heads_are_refused(model):
    held, sae = frozen.freeze(model, TOKENS), dictionary(RESIDUAL)
    with pytest.raises(UsageError, match="no attention from position 3 to 6: 0 <= src <= dest < 7"):
        query_key(model, held, sae, 1, 0, 3, 6)
    with pytest.raises(
        UsageError, match="no head 4 in layer 1: this model has 2 layers of 4 heads"
    ):
        query_key(model, held, sae, 1, 4, 6, 3)


def test_rotary_scores_of_grouped_heads_are_split(assets: Path):
    llama, sae = models.load(assets / "stories260K"), dictionary("blocks.0.hook_out", width=64)
    held = frozen.freeze(llama, TOKENS % 500)
    found = query_key(llama, held, sae, 1, 5, 6, 3)
    assert float(found.scores.sum()) == pytest.approx(found.score, rel=1e-3, abs=1e-4)
    assert abs(found.score) > 0.01


def test_parts_that_miss_the_score_are_refused():
    check(torch.tensor(1.0), 1.0005, torch.tensor(1.0))
    with pytest.raises(UsageError, match="no plain product of query and key"):
        check(torch.tensor(1.0), 1.01, torch.tensor(1.0))
