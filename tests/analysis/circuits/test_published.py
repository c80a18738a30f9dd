"""Agreement with a published circuit: by hand, beside chance within layers, and on a model of the
paper's shape."""

import random

import numpy as np
import pytest
import torch

from apps.cli import circuit_text
from saelab import models
from saelab.analysis.circuits.heads import against, curves
from saelab.analysis.circuits.heads.plan import Plan
from saelab.analysis.circuits.heads.published import PUBLISHED
from saelab.analysis.circuits.heads.report import report
from saelab.analysis.circuits.heads.score import Scores
from saelab.errors import UsageError
from saelab.models import running
from tests.conftest import make_model
from tests.schemas import check

OWN = {"schema": "saelab/circuits/1", "saelab_version": "0", "seed": 0, "command": "python"}
IOI = PUBLISHED["ioi"]


def test_the_measures_by_hand():
    """Of four pairs of a member and another three are in order; of the two largest one is a
    member; three are in either set."""
    sizes_E, members_E = np.array([3.0, 2, 1, 0]), np.array([True, False, True, False])
    assert against.measures(sizes_E, members_E).tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 3])


def scored(heads_LH: torch.Tensor) -> dict:
    return against.against([Scores("eap", heads_LH, None, None, 0.0)] * 3, IOI)["heads"]


def test_the_circuit_itself_agrees_wholly_and_layers_alone_as_chance_does():
    members_LH = torch.zeros(12, 12)
    for layer, head in IOI.heads():
        members_LH[layer, head] = -1  # a head that works against the task is a member too
    right = scored(members_LH)
    assert [right[name]["value"] for name in against.MEASURES] == [1, 1, 1]
    assert all(right[name]["null"] < 0.7 for name in against.MEASURES)
    layers = scored(torch.arange(12.0)[:, None].expand(12, 12))
    assert layers["auc"]["value"] == pytest.approx(layers["auc"]["null"]) and layers["of"] == 144
    assert layers["auc"]["value"] > 0.6  # what a null that forgets the layers would call merit
    low, high = layers["chance"]["auc"]
    assert low == pytest.approx(high)


def test_edges_are_compared_among_the_kinds_that_the_paper_lists():
    listed = [("a7.h3", "a9.h9.q"), ("a7.h3", "a9.h8.q"), ("embed", "a9.h9.q"), ("m1", "m2")]
    edges = against.edges_of(IOI, listed)
    assert edges.names == listed[:2] and edges.members_E.tolist() == [True, False]
    assert edges.groups_E[0] == edges.groups_E[1]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory):
    """A random model of GPT-2 small's layers and heads, a token per character."""
    folder = tmp_path_factory.mktemp("models") / "gpt2"
    return models.load(make_model(folder, n_embd=24, n_layer=12, n_head=12))


def continued(model) -> list[dict]:
    """Pairs whose answers are what the model says, so that it does the task."""
    rng = random.Random(0)
    texts = ["".join(rng.choices("abcdefgh", k=4)) for _ in range(24)]
    ids = torch.tensor([[0, *model.tokenizer(text)["input_ids"]] for text in texts])
    last = running.logits(model, ids, last=True)[:, 65:91]
    said = [model.tokenizer.decode([65 + int(row.argmax())]) for row in last]
    return [
        {"clean": text, "corrupted": texts[i - 1], "answers": said[i], "wrong": said[i - 1]}
        for i, text in enumerate(texts)
        if said[i] != said[i - 1]
    ]


def test_a_model_of_the_papers_shape_is_compared_by_heads_and_edges(small, tmp_path, monkeypatch):
    monkeypatch.setattr(against, "DRAWS", 40)
    monkeypatch.setattr(curves, "sizes", lambda n_heads: [0, 26, n_heads])
    plan = Plan(continued(small), "eap", 1, 3, 4, "none", published="ioi")
    fields = report(small, plan)
    check(fields | OWN, "circuits")
    paper = fields["published"]
    assert paper["heads"]["members"] == 26 and paper["edges"]["members"] == len(IOI.edges)
    for held in (paper["heads"], paper["edges"]):
        low, high = held["chance"]["auc"]
        assert low < held["auc"]["null"] < high and held["auc"]["low"] is not None
    assert sum(role["heads"] for role in paper["roles"].values()) == 26
    text = circuit_text.text(fields | OWN, tmp_path)
    assert "agreement with Wang et al. 2022" in text and "26 of 144 heads" in text


def test_another_model_of_that_name_is_refused(tmp_path):
    model = models.load(make_model(tmp_path / "gpt2"))
    with pytest.raises(UsageError, match=r"gpt2 has 12 layers of 12 heads, and .*gpt2 2 of 4"):
        against.published(model, "ioi")
    with pytest.raises(UsageError, match="is one of attn-only-4l, and this model is"):
        against.published(model, "docstring")
