"""The discrete-code paper's claims: judged by hand, a tiny form on the bundled model, and compiled
programs, whose truth can be broken."""

from functools import partial
from pathlib import Path

import pytest
import torch

from saelab import models
from tests.analysis.compiled import compile_program, compiled_task
from training.reproduce import Settings, circuits, claims


def test_a_level_is_reached_only_by_the_whole_interval():
    assert circuits._level("c", 0.8, [0.9, 0.91, 0.92]).holds is True
    assert circuits._level("c", 0.8, [0.5, 0.51, 0.52]).holds is False
    assert circuits._level("c", 0.8, [0.7, 0.8, 0.9]).holds is None
    assert (
        circuits._level("c", 0.8, [0.9, 1.0, 1.0]).ours.high == 1
        and circuits._level("c", 0.8, [0.0, 0.0, 0.1]).ours.low == 0
    )


def test_without_a_number_of_theirs_chance_is_the_level():
    assert circuits._level("c", None, [0.7, 0.71, 0.72])[1] == "not reported (above 0.5)"
    assert circuits._level("c", None, [0.7, 0.71, 0.72]).holds is True
    assert circuits._level("c", None, [0.3, 0.31, 0.32]).holds is False


def test_differences_are_undecided_before_five_seeds():
    assert circuits._above("c", [0.9] * 3, [0.5, 0.51, 0.52]).holds is None
    assert circuits._above("c", [0.9] * 5, [0.5, 0.51, 0.52, 0.5, 0.5]).holds is True


def test_the_claims_are_those_of_every_task_in_the_form_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked, seen = [], []
    monkeypatch.setattr(circuits, "bundled", lambda settings, *given: given)
    monkeypatch.setattr(circuits, "compiled", lambda settings: "the program")
    monkeypatch.setattr(circuits, "of_case", lambda *given: asked.append(given) or [given[0]])
    settings = Settings(quick=True, seed=7, progress=lambda *what: seen.append(what))
    cases = [("ioi", 16), ("greater-than", 16), ("docstring", 16), "the program"]
    assert claims("circuits", settings) == cases
    assert asked == [(case, circuits.QUICK, 7) for case in cases]
    assert seen[-1] == ("circuits", 4, 4)
    circuits.claims(settings._replace(quick=False))
    assert {given[1] for given in asked[4:]} == {circuits.FULL}


def test_one_task_of_a_tiny_form(bundled: str, monkeypatch: pytest.MonkeyPatch):
    """Every claim has a number, and attribution beats the codes on a task whose heads are plain to
    see."""
    monkeypatch.setattr(circuits.codes, "EPOCHS", 50)
    case = circuits.bundled(Settings(), "greater-than", 16)
    found = circuits.of_case(case, circuits.Form(3, 10, 16, (circuits.EXAMPLES,)), seed=0)
    assert [claim.theirs for claim in found[:2]] == ["0.855", "0.873"]
    assert all(claim.ours.value is not None and claim.ours.low is not None for claim in found)
    assert all(0 <= claim.ours.value <= 1 for claim in found[:4] if claim.ours.value is not None)
    assert found[5].ours.value is not None and found[5].ours.value < 0.1
    above = (
        found[2].ours.value - found[4].ours.value
        if found[2].ours.value is not None and found[4].ours.value is not None
        else 0
    )
    assert 0.8 < above <= 1, "the layer's number alone is close to the answer on this task"


def test_the_programs_heads_are_the_truth_and_it_does_its_task(tmp_path: Path):
    case = circuits.compiled(Settings(work=tmp_path))
    drawn = case.draw(n=20, seed=1)
    assert torch.equal(case.model(drawn.clean)[:, -1].argmax(-1), drawn.right[:, 0])
    assert case.members_LH.nonzero().tolist() == [[0, 2], [1, 1]]


def test_a_compiled_circuit_is_found_and_a_broken_truth_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Twins of the selector say the opposite, so that codes follow the label; without decoys no
    other head writes anything."""
    monkeypatch.setattr(circuits.codes, "EPOCHS", 100)
    true = compile_program("selector", tmp_path, decoys=False)
    model = models.load(true.folder)
    draw = partial(compiled_task, "selector", model)
    case = circuits.Case(circuits.COMPILED, model, true.heads, draw)
    form = circuits.Form(5, 30, 0, (5, circuits.EXAMPLES, 12))
    found = {claim.claim.split(": ")[1]: claim for claim in circuits.of_case(case, form, seed=0)}
    assert found["AUC of node codes, centred"].holds is True
    assert found["centred node codes above mixed ones"].holds is True
    assert {"5 SAE examples above 12", "10 SAE examples above 12"} < set(found)
    broken = circuits.of_case(case._replace(members_LH=~true.heads), form, seed=0)
    assert broken[2].holds is False and broken[6].holds is False


def test_codes_that_follow_the_label_say_nothing_once_mixed():
    clean, twins = torch.tensor([[0, 1]] * 4), torch.tensor([[2, 1]] * 4)
    follow = circuits.Codes(clean, twins)
    assert circuits.only_in_clean(follow).tolist() == [1.0, 0.0]
    assert circuits.only_in_clean(circuits._mixed(follow)).tolist() == [0.0, 0.0]
