"""The prompts that seeds have always drawn: numbers measured on them stay comparable."""

import hashlib
import json
import random

import pytest

from saelab.bundled import corpus, prompts, templates
from saelab.documents import Document
from saelab.tasks import attributes, drawing

OWN = {
    "ioi": "94d7b3ee1456",
    "greater-than": "a1701eee7518",
    "docstring": "7cd58db18c04",
    "induction": "a4f6e5f30754",
}
WORDS = templates.NAMES + templates.NOUNS + templates.ARGUMENTS
SPLITS = (False, True)


def digest(value) -> str:
    """The first characters of a value's digest."""
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:12]


def pairs(name: str) -> list:
    """100 pairs of either split."""
    rngs = {held_out: random.Random(f"{name}/{held_out}") for held_out in SPLITS}
    drawn = [
        drawing.GENERATORS[name](rngs[held_out], held_out)
        for held_out in SPLITS
        for _ in range(100)
    ]
    return [[*one[:4], dict(sorted(one.marks.items())), one.labels] for one in drawn]


@pytest.mark.parametrize(("name", "expected"), [
    ("ioi", "dfe957dd5a38"),
    ("greater-than", "f0affb121982"),
    ("docstring", "14e01440bdb6"),
    ("induction", "3f44003f0b51"),
    ("agreement", "17f819916617"),
])  # fmt: skip
def test_circuit_pairs(name: str, expected: str):
    assert digest(pairs(name)) == expected


@pytest.mark.parametrize(("name", "expected"), [
    ("ioi", "ba365bcf17cf"),
    ("greater-than", "4091d52e1f81"),
    ("docstring", "c5c6f7ad3f6b"),
])  # fmt: skip
def test_labelled_prompts_and_their_counterfactuals(name: str, expected: str):
    rows = attributes.rows(name, 100, 3, twins=True)
    plain = [[r.clean, r.right, r.wrong, r.labels, dict(r.marks), r.group] for r in rows]
    assert digest(plain) == expected


def test_probing_prompts():
    drawn = attributes.gifts(100, templates.NAMES[:6], True)
    plain = [[one.clean, one.labels["io"], one.labels["s"], one.labels["order"]] for one in drawn]
    assert digest(plain) == "129f662bf704"


def test_the_bundled_models_own_text():
    documents = [Document("a", "x" * 40_000, "a")]
    assert digest([d.text for d in corpus.mixture(WORDS, 0, documents)]) == "e7f6665bef5e"
    for task in templates.TASKS:
        rng = random.Random(7)
        drawn = [prompts.prompt(task, rng, held_out=True) for _ in range(50)]
        plain = [
            [one.labels["template"], one.clean, one.right[0], sorted(one.wrong)] for one in drawn
        ]
        assert digest(plain) == OWN[task]


def test_a_mark_stands_on_its_own_word_not_on_one_that_begins_alike():
    names = ["key", "filename", "file", "order", "target"]
    drawn = prompts.docstring(78, "key", "f", "title", names, ["a b", "c d"])
    end = drawn.marks["definition"] + 1
    assert drawn.clean[:end].endswith("filename, file") and drawn.right == (" file",)
