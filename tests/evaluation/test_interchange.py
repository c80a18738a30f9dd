"""Interchange on a compiled program with two attributes at one position: the SAE that knows it
moves one and leaves the other, all latents move both, none moves neither."""

from typing import Any

import pytest
import torch

from apps.cli import eval_suite
from saelab import SAE, Choice, models
from saelab.analysis.circuits import planted
from saelab.analysis.circuits.planted import attributes
from saelab.evaluation import interchange, stated
from saelab.models import running
from saelab.opening import Opened
from saelab.origin import Origin


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The compiled program."""
    folder = tmp_path_factory.mktemp("attributes")
    planted.compile_program(attributes.attributes(), folder)
    return models.load(folder)


def at_item(model: Any, pairs: interchange.Pairs) -> torch.Tensor:
    """[P, D]."""
    return running.read(model, pairs.base, [attributes.HOOK])[attributes.HOOK][:, 1].float()


def oracle(model: Any) -> SAE:
    """A latent per value of either attribute, which reads and writes its coordinate."""
    var = attributes.attributes().variables
    rows_8U = torch.cat([var("colour").T, var("shape").T])
    sae = SAE(2 * var.n, 8, Choice(2))
    sae.W_enc.data.copy_(torch.cat([rows_8U, -rows_8U], 1) / 2)
    sae.W_dec.data.copy_(torch.cat([rows_8U, -rows_8U], 1))
    sae.b_dec.data.zero_()
    return sae


def test_the_compiled_program_answers_what_it_is_asked(model: Any):
    program, pairs = attributes.attributes(), attributes.pairs("colour", 64)
    said = running.logits(model, pairs.base, last=True).argmax(1)
    words = [program.words[int(number)] for number in said]
    asked = [program.words[int(row[2])] for row in pairs.base]
    items = [program.words[int(row[1])] for row in pairs.base]
    right = [item.split("-")[query == "shape?"] for item, query in zip(items, asked, strict=True)]
    assert words == right and attributes.is_planted(model)
    assert len(planted.compiled_task(program, model, 10).labels["asked"]) == 10


@pytest.mark.parametrize("name", ["colour", "shape"])
def test_who_knows_the_attributes_moves_one_all_move_both_and_none_neither(model: Any, name: str):
    train, test = (attributes.pairs(name, 128, held_out=apart) for apart in (False, True))
    basis = interchange.of_sae(oracle(model), at_item(model, train))
    assert basis.n == 8
    mask_L = interchange.learned(model, attributes.HOOK, basis, train)
    own = torch.zeros(8, dtype=torch.bool)
    own[slice(0, 4) if name == "colour" else slice(4, 8)] = True
    for each, scores in (
        (mask_L, (1, 1)),
        (own, (1, 1)),
        (~own, (0, 0)),
        (torch.ones(8, dtype=torch.bool), (1, 0)),
        (torch.zeros(8, dtype=torch.bool), (0, 1)),
    ):
        found = interchange.scored(model, attributes.HOOK, basis, test, each)
        assert (found.score(True), found.score(False)) == scores
    rows = {row.metric: row.estimate for row in interchange.stated(found, name)}
    assert rows["disentanglement"][:4] == (0.5, 0.5, 0.5, 0.5) and rows["cause"].value == 0


def test_held_out_pairs_are_of_items_that_are_no_pair_in_training():
    sides = [attributes.pairs("colour", 300, held_out=apart) for apart in (False, True)]
    train, test = (
        {*zip(one.base[:, 1].tolist(), one.source[:, 1].tolist(), strict=True)} for one in sides
    )
    assert not train & test and {base for base, _ in train} == {base for base, _ in test}
    again = attributes.pairs("colour", 300, 1)  # the twin: another seed alone keeps none apart
    assert train & {*zip(again.base[:, 1].tolist(), again.source[:, 1].tolist(), strict=True)}


def test_without_the_bases_error_an_sae_that_misses_all_breaks_the_prediction(model: Any):
    """The error carries what this SAE misses, the constant among it: kept, the prediction stays."""
    test = attributes.pairs("colour", 60, 1)
    blind = oracle(model)
    blind.W_dec.data.zero_()
    basis = interchange.of_sae(blind, at_item(model, test))
    none = torch.zeros(basis.n, dtype=torch.bool)
    kept, lost = (
        interchange.scored(model, attributes.HOOK, basis, test, none, kept=kept)
        for kept in (True, False)
    )
    assert kept.score(False) == 1 > lost.score(False) + 0.3


def test_a_learned_rotation_finds_what_neurons_hold_too(model: Any):
    train, test = (attributes.pairs("colour", 128, held_out=apart) for apart in (False, True))
    width = 2 * attributes.attributes().variables.n
    basis = interchange.neurons(width)
    mask_D = interchange.learned(model, attributes.HOOK, basis, train)
    found = interchange.scored(model, attributes.HOOK, basis, test, mask_D)
    assert (found.score(True), found.score(False)) == (1, 1)


def test_the_suite_moves_attributes_by_the_sae_beside_neurons_and_a_rotation(
    model: Any, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(eval_suite, "PAIRS", {"train": 64, "held out": 40})
    monkeypatch.setattr(interchange, "EPOCHS", 8)
    sae = oracle(model)
    sae.origin = Origin(attributes.HOOK)
    moved, reason = eval_suite.interchanges(Opened(None, sae, None, model), {"sae": sae}, 0)
    rows = {(row["dictionary"], row["label"], row["metric"]): row for row in stated.table(moved)}
    assert reason == "" and {name for name, *_ in rows} == {"sae", "neurons", "rotation"}
    assert rows["sae", "colour", "disentanglement"]["value"] == 1
    assert rows["sae", "shape", "cause"]["value"] == 1
    assert rows["sae", "colour, error lost", "disentanglement"]["value"] < 1  # the constant is lost
    sae.origin = Origin("blocks.1.hook_resid_post")
    assert eval_suite.interchanges(Opened(None, sae, None, model), {"sae": sae}, 0)[0] == {}
