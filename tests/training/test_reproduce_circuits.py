"""The discrete-code paper's claims: judged by hand, and the quick form on the bundled model."""

import pytest

from training.reproduce import Settings, circuits, claims


def test_a_level_is_reached_only_by_the_whole_interval():
    assert circuits._level("c", 0.8, [0.9, 0.91, 0.92]).holds is True
    assert circuits._level("c", 0.8, [0.5, 0.51, 0.52]).holds is False
    assert circuits._level("c", 0.8, [0.7, 0.8, 0.9]).holds is None
    assert (
        circuits._level("c", 0.8, [0.9, 1.0, 1.0]).ours.high == 1
        and circuits._level("c", 0.8, [0.0, 0.0, 0.1]).ours.low == 0
    )


def test_differences_are_undecided_before_five_seeds():
    assert circuits._above("c", [0.9] * 3, [0.5, 0.51, 0.52]).holds is None
    assert circuits._above("c", [0.9] * 5, [0.5, 0.51, 0.52, 0.5, 0.5]).holds is True


def test_the_claims_are_those_of_every_task_in_the_form_asked_for(monkeypatch: pytest.MonkeyPatch):
    asked, seen = [], []
    monkeypatch.setattr(circuits.data, "model", lambda settings: "the model")
    monkeypatch.setattr(circuits, "of_task", lambda *given: asked.append(given) or [given[1]])
    settings = Settings(quick=True, seed=7, progress=lambda *what: seen.append(what))
    assert claims("circuits", settings) == ["ioi", "greater-than", "docstring"]
    assert asked == [("the model", name, circuits.QUICK, 7) for name in circuits.THEIRS]
    assert seen[-1] == ("circuits", 3, 3)
    circuits.claims(settings._replace(quick=False))
    assert {given[2] for given in asked[3:]} == {circuits.FULL}


def test_one_task_of_a_tiny_form(bundled: str, monkeypatch: pytest.MonkeyPatch):
    """Every claim has a number, and attribution beats the codes on a task whose heads are plain to
    see."""
    from training.reproduce import data

    monkeypatch.setattr(circuits.codes, "EPOCHS", 50)
    found = circuits.of_task(
        data.model(Settings()), "greater-than", circuits.Form(3, 10, 16, False), seed=0
    )
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
