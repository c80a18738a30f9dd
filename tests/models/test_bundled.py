"""The bundled model and its text: single-token words, digits in pairs, held-out rules, and a card
that tells the truth."""

import json
import random

import pytest
from tokenizers import Tokenizer

from saelab.bundled import corpus, prompts, templates
from saelab.documents import Document, held_out
from tests.conftest import ROOT

FOLDER = ROOT / "data" / "bundled"


@pytest.fixture(scope="module")
def tokenizer(bundled: str) -> Tokenizer:
    """The bundled tokenizer."""
    return Tokenizer.from_file(str(FOLDER / "tokenizer.json"))


@pytest.mark.parametrize(("kind", "least"), [("NAMES", 60), ("NOUNS", 60), ("ARGUMENTS", 40)])
def test_every_word_of_the_tasks_is_one_token_after_a_space(
    tokenizer: Tokenizer, kind: str, least: int
):
    words = getattr(templates, kind)
    assert len(set(words)) == len(words) >= least
    assert [word for word in words if len(tokenizer.encode(f" {word}").ids) != 1] == []
    assert len(tokenizer.encode(" Nebuchadnezzar").ids) > 1


def test_digits_split_in_pairs_from_the_left(tokenizer: Tokenizer):
    assert all(len(tokenizer.encode(f"{pair:02d}").ids) == 1 for pair in range(100))
    assert tokenizer.encode("in 17325").tokens == ["in", "Ġ", "17", "32", "5"]


def test_answers_are_single_tokens_and_stand_in_the_prompt(tokenizer: Tokenizer):
    rng = random.Random(0)
    for task in templates.TASKS:
        for held in (False, True):
            for _ in range(50):
                prompt = prompts.prompt(task, rng, held_out=held)
                answer = prompt.right[0]
                ids, alone = (tokenizer.encode(text).ids for text in (prompt.clean, answer))
                assert len(alone) == 1 and not set(prompt.right) & set(prompt.wrong)
                assert len(ids) < 255
                assert tokenizer.encode(prompt.clean + answer).ids == ids + alone
                if task != "greater-than":
                    assert answer in prompt.clean


def test_answers_are_right_by_a_rule_that_reads_only_the_text():
    rng = random.Random(1)
    for _ in range(100):
        ioi = prompts.prompt("ioi", rng)
        said = [w.strip(",.") for w in ioi.clean.split() if w.strip(",.") in templates.NAMES]
        assert [name for name in said if said.count(name) == 1] == [ioi.right[0].strip()]
        later = prompts.prompt("greater-than", rng)
        start = int(later.clean[later.clean.index("1") + 2 :][:2])
        assert min(map(int, later.right)) > start and sorted(map(int, later.wrong)) == list(
            range(start + 1)
        )


def test_templates_held_out_of_training_are_never_drawn_for_it():
    rng = random.Random(2)
    for task in templates.TASKS:
        kept = {prompts.prompt(task, rng, held_out=True).labels["template"] for _ in range(200)}
        used = {prompts.prompt(task, rng).labels["template"] for _ in range(500)}
        assert len(templates.TEMPLATES[task]) >= 12 and len(kept) == 4 and not kept & used
        texts = [t if isinstance(t, str) else "".join(t) for t in templates.TEMPLATES[task]]
        assert not set(texts[-4:]) & set(texts[:-4])


def test_a_near_copy_of_a_held_out_file_is_dropped_and_a_distant_one_kept():
    key = next(name for name in map(str, range(400)) if held_out(name))
    held = Document("a", "\n".join(f"line {n}" for n in range(10)), key)
    near = Document("b", "\n".join(f"line {n}" for n in range(6)) + "\nown 1\nown 2", "b")
    far = Document(
        "c", "\n".join(f"line {n}" for n in range(4)) + "\nown 1\nown 2\nown 3\nown 4", "c"
    )
    names = [
        document.name
        for document in corpus.without_near_copies([held, near, far, far._replace(name="d")])
    ]
    assert names == ["a", "c"]


def test_about_one_document_in_twenty_is_held_out_by_one_rule():
    share = sum(held_out(f"module/file{n}.py") for n in range(4000)) / 4000
    assert 0.035 < share < 0.065
    assert held_out("os.py") == held_out("os.py")


def test_the_weights_are_small_float16_and_the_card_meets_what_it_claims(bundled: str):
    from safetensors import safe_open

    weights = FOLDER / "model.safetensors"
    assert weights.stat().st_size <= 12_000_000
    with safe_open(weights, "pt") as file:
        assert {str(file.get_slice(name).get_dtype()) for name in file.keys()} == {"F16"}  # noqa: SIM118
    card = json.loads((FOLDER / "card.json").read_text())
    assert card["stdlib"]["bits_per_byte"] <= 1.6 and card["induction_head"]["score"] >= 0.8
    text = (FOLDER / "README.md").read_text()
    assert f"{card['stdlib']['bits_per_byte']:.3f} bits per UTF-8 byte" in text
    assert all(f"{row['accuracy']:.3f}" in text for row in card["tasks"].values())


def test_the_cards_numbers_come_out_again_on_fewer_prompts(bundled: str):
    from saelab import models
    from training.bundled import model_card

    model = models.load(bundled)
    card = json.loads((FOLDER / "card.json").read_text())
    for task in templates.TASKS:
        again = model_card.task_score(model, task, 100)
        assert again["accuracy"] == pytest.approx(card["tasks"][task]["accuracy"], abs=0.15)
        assert again["accuracy"] > again["chance"] + 0.2
    text = model_card.bits_per_byte(model, model.tokenizer, 40)
    assert text["bits_per_byte"] == pytest.approx(card["stdlib"]["bits_per_byte"], abs=0.25)


def test_the_corpus_record_adds_up():
    record = json.loads((ROOT / "data" / "corpus.json").read_text())
    packages = {row["package"]: row for row in record["packages"]}
    assert set(packages) == {"stdlib", *corpus.PACKAGES}
    assert all(
        len(row["sha256"]) == 64 and row["files"] > row["held_out_files"] and row["bytes"]
        for row in packages.values()
    )
