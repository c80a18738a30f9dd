"""Features that never fire are found without coding every token, and counts belong to their
documents."""

import pytest
import torch

from saelab import SAE, Choice, Threshold
from saelab.code import Code
from saelab.evaluation import firing
from saelab.evaluation.firing import Firings, silent
from saelab.sparsify import Sparsify


def tokens(n: int, seed: int = 0) -> torch.Tensor:
    """[n, 16] of uneven directions, so that some features fire often and others seldom."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16, generator=draw) * torch.linspace(0.05, 2, 16)


@pytest.mark.parametrize(
    "form",
    [Choice(2), Choice(3, signed=True), Threshold(), Threshold(2.5), Choice(2, over="batch")],
)
def test_silent_features_are_those_that_coding_everything_finds(form: Sparsify, monkeypatch):
    sae = SAE(16, 120, form, seed=3)
    sae.b_dec.data += 0.3
    sae.b_enc.data[:40] -= 4  # some that never do
    if form == Threshold(2.5):
        sae.levels = torch.linspace(0, 5, 120)
    pieces = tokens(6000).split(500)
    coded = []
    encode = SAE.encode
    monkeypatch.setattr(SAE, "encode", lambda self, x: coded.append(len(x)) or encode(self, x))
    found_F = silent(sae, pieces)
    every_F = torch.zeros(120, dtype=torch.int64)
    for x in pieces:
        code = encode(sae, x)
        every_F += torch.bincount(code.features[code.values != 0], minlength=120)
    assert torch.equal(found_F, every_F == 0) and 0 < int(found_F.sum()) < 120
    assert sum(coded) < 6000 or form == Choice(2, over="batch")


def test_a_filter_that_drops_tokens_would_be_seen(monkeypatch):
    sae, pieces = SAE(16, 120, Choice(2), seed=3), tokens(6000).split(500)
    true_F = silent(sae, pieces)
    strict = firing._may_fire
    few = lambda *of: strict(*of) & (torch.arange(500) < 100)  # noqa: E731
    monkeypatch.setattr(firing, "_may_fire", few)
    assert not torch.equal(silent(sae, pieces), true_F)


def test_firings_belong_to_their_documents():
    counts = Firings(4)
    code = Code(
        torch.tensor([0, 2, 3, 4]), torch.tensor([0, 3, 0, 1]), torch.tensor([1.0, 2, 0, 5]), 4
    )
    counts.add(torch.tensor([7, 3, 7]), code)
    counts.add(torch.tensor([3, 3, 9]), code)
    assert counts.table([3, 7, 9]).toarray().tolist() == [[1, 0, 0, 1], [1, 1, 0, 1], [0, 1, 0, 0]]
