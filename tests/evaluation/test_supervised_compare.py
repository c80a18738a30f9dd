"""All tests at once: a perfect dictionary scores 1 in each, an empty one 0, a mislabelled one is
found out."""

from itertools import product
from pathlib import Path

import pytest
import torch

from saelab import SAE, models
from saelab.errors import UsageError
from saelab.evaluation.supervised import compare, evaluate, visit, with_controls
from saelab.evaluation.supervised import site as sites
from saelab.evaluation.supervised.dictionary import Features
from saelab.sparsify import Choice
from saelab.tasks import Drawn, build
from tests.conftest import HOOK

SCORES = ("sufficiency", "necessity", "edit_agreement", "edit_success", "f1")


@pytest.fixture(scope="module")
def bridge(tiny_model: Path):
    """The tiny model."""
    return models.load(tiny_model)


def prompts(bridge, attributes: int = 1, wrong: tuple[str, ...] = ("z",)):
    """Prompts of one letter, twice (or of two letters), as attributes; the answer is the letter the
    model likes best."""
    letters = [*product("abcdefghij", repeat=attributes)] * (2 if attributes == 1 else 1)
    made = [
        Drawn("".join(chosen), "", ("q",), wrong, {}, dict(zip("xy", chosen, strict=False)))
        for chosen in letters
    ]
    return build("letters", bridge, made)


@pytest.fixture(scope="module")
def site(bridge):
    """One attribute and nothing else: the supervised dictionary can be perfect."""
    found = prompts(bridge)
    logits = compare.runs.logits(bridge, found)
    best, worst = logits.argmax(1), logits.argmin(1)
    found = found._replace(right=best[:, None], wrong=worst[:, None])
    return visit(bridge, HOOK, found, found)


@pytest.fixture(scope="module")
def measured(site) -> dict:
    """Results of dictionaries known in advance."""
    perfect = sites.supervised(site)["end"]
    empty = lambda acts, labels: perfect(acts, labels)._replace(codes=torch.zeros(len(acts), 10))  # noqa: E731
    wrong = lambda acts, labels: perfect(acts, {"x": labels["x"][1:] + labels["x"][:1]})  # noqa: E731
    rows = {"perfect": perfect, "empty": empty, "mislabelled": wrong}
    return evaluate(site, {name: {"end": row} for name, row in rows.items()}, changes=(1,))


def test_a_perfect_dictionary_scores_one_and_an_empty_one_its_null(measured: dict):
    for score in SCORES:
        assert measured[score]["perfect"]["value"] == pytest.approx(1, abs=1e-3), score
        empty = measured[score]["empty"]
        assert empty["value"] == pytest.approx(
            empty["null"] if score == "edit_agreement" else 0, abs=1e-3
        ), score
    assert measured["edit_magnitude"]["empty"]["value"] == 0
    assert measured["edit_agreement"]["perfect"]["null"] < 1


def test_a_mislabelled_dictionary_is_found_out(measured: dict):
    for score in ("sufficiency", "edit_success"):
        assert measured[score]["mislabelled"]["value"] < 0.9, score


def test_intervals_hold_their_values_and_edits_are_listed(measured: dict):
    for score in SCORES:
        for field in measured[score].values():
            assert field["low"] - 1e-9 <= field["value"] <= field["high"] + 1e-9
    assert [(row["dictionary"], row["changes"]) for row in measured["edits"]][:2] == [
        ("perfect", 1),
        ("perfect", 6),
    ]
    assert measured["prompts"] == {"fit": 20, "test": 20, "edits": 10}


def test_patches_reach_the_model(site):
    own = compare.runs.logits(site.model, site.test, site.hook, site.test_acts)
    torch.testing.assert_close(
        own, compare.runs.logits(site.model, site.test), atol=1e-4, rtol=1e-4
    )
    order = torch.arange(19, -1, -1)
    swapped = {"end": site.test_acts["end"][order]}
    assert not torch.allclose(
        compare.runs.logits(site.model, site.test, site.hook, swapped), own, atol=1e-2
    )


def test_controls_stand_in_every_table(site):
    sae = SAE(32, 48, Choice(4))
    rows = with_controls(site, sae)
    assert list(rows) == ["supervised", "supervised_mean", "sae", "frozen_decoder", "random_init"]
    acts = site.fit_acts["end"]
    found = {name: row["end"](acts, site.fit.labels) for name, row in rows.items()}
    assert all(isinstance(features, Features) for features in found.values())
    error = {
        name: float((features.reconstruction() - acts).square().sum())
        for name, features in found.items()
    }
    assert error["frozen_decoder"] < error["random_init"]


def test_bad_input_is_named(bridge, site):
    with pytest.raises(
        UsageError,
        match=r"the SAE has d_model=16; wanted is an autoencoder of .* whose width is 32",
    ):
        sites.everywhere(site, SAE(16, 48, Choice(4)))
    with pytest.raises(UsageError, match="the SAE is a transcoder"):
        sites.everywhere(site, SAE(32, 48, Choice(4), transcoder=True))
    with pytest.raises(UsageError, match="no position 'start'; these prompts have end"):
        visit(bridge, HOOK, site.fit, site.test, ["start"])
    with pytest.raises(UsageError, match="no hook"):
        visit(bridge, "blocks.9.hook_out", site.fit, site.test)
    alone = site.test.part([0, 10])
    with pytest.raises(UsageError, match="no two test prompts differ in one attribute alone"):
        compare._GroundTruth(visit(bridge, HOOK, site.fit, alone))
