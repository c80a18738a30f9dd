"""Prompts read back from their tokens are the text that was given."""

from pathlib import Path

from apps.browser import circuit
from saelab.tasks import Drawn, build
from saelab.tasks.written import written
from tests.tasks.tokenizers import reads


def test_prompts_are_their_texts_with_twins_and_answers(tiny_model: Path):
    pairs = [
        Drawn("Ann met Ben", "Tom met Ben", ("s", "x"), ("t",)),
        Drawn("Ida met Ben", "Eva met Ben", ("c",), ("d",)),
    ]
    task = build("letters", reads(tiny_model), pairs)
    assert written(task, reads(tiny_model).tokenizer) == [
        {"clean": "Ann met Ben", "corrupted": "Tom met Ben", "right": ["s", "x"], "wrong": ["t"]},
        {"clean": "Ida met Ben", "corrupted": "Eva met Ben", "right": ["c"], "wrong": ["d"]},
    ]
    alone = build("alone", reads(tiny_model), [Drawn("ab", "", ("c",), ())])
    (prompt,) = written(alone, reads(tiny_model).tokenizer)
    assert prompt["corrupted"] is None and prompt["wrong"] == []


def test_the_page_marks_what_differs_and_escapes_it():
    prompt = {
        "clean": "Ann met <b>Ben",
        "corrupted": "Tom met <b>Ben",
        "right": ["<i>"],
        "wrong": [],
    }
    known = {"scoring": 8, "repeats": 1, "held_out": 24, "examples": [prompt]}
    shown = circuit.prompts({"prompts": known})
    assert "<mark>Ann</mark> met &lt;b&gt;Ben" in shown and "<mark>Tom</mark>" in shown
    assert "&lt;i&gt;" in shown and "8 prompts scored, 24 held out" in shown
    longer = {**prompt, "corrupted": "Tom Smith met <b>Ben"}
    assert "<mark>" not in circuit.prompts({"prompts": {**known, "examples": [longer]}})
    assert circuit.prompts({"prompts": {"scoring": 8, "repeats": 1, "held_out": 24}})
    assert circuit.prompts({}) == circuit.prompts({"prompts": "<x>"}) == ""
