"""Answers are the ids that follow in place, in tokenizers with a dummy prefix too; what does not
fit is named with its row."""

from pathlib import Path

import pytest
import torch

from saelab.errors import UsageError
from saelab.tasks import Drawn, build, collect
from saelab.tasks.reading import Reader
from tests.tasks.tokenizers import reads, with_dummy_prefix

WORDS = ["▁Anna", "▁Ben", "▁gave", "▁it", "▁to", "▁Tom", "▁met", "er", "in"]


@pytest.fixture(scope="module", params=["normalizer", "metaspace"])
def llama(request: pytest.FixtureRequest):
    """Something with a dummy prefix, built here."""
    return with_dummy_prefix(WORDS, request.param)


@pytest.fixture(scope="module")
def stories(assets: Path):
    """A real tokenizer of Llama's kind."""
    return reads(assets / "stories260K")


@pytest.fixture(scope="module")
def characters(tiny_model: Path):
    """A token per byte."""
    return reads(tiny_model)


def gift(giver: str = "Ben", right: str = " Anna", wrong: str = " Ben", **more) -> Drawn:
    """A pair whose twin has another giver."""
    clean, twin = (f"Anna met Ben. {name} gave it to" for name in (giver, "Tom"))
    return Drawn(clean, twin, (right,), (wrong,), {"s2": clean.index(" gave") - 1}, {}, **more)


def test_what_follows_a_dummy_prefix_is_one_token_though_the_word_alone_is_two(llama):
    ids = llama.tokenizer.get_vocab()
    # By itself an answer gets a space that is not its own.
    alone = llama.tokenizer(".", add_special_tokens=False)["input_ids"]
    assert alone == [ids["▁"], ids["."]]
    assert build("ends", llama, [gift(right=".")]).right.tolist() == [[ids["."]]]
    task = build("gifts", llama, [gift()])
    assert task.right.tolist() == [[ids["▁Anna"]]] and task.wrong.tolist() == [[ids["▁Ben"]]]
    assert task.clean[0, 0] == llama.tokenizer.bos_token_id
    assert task.clean[0, task.positions["s2"][0]] == ids["▁Ben"]
    assert llama.tokenizer.decode(task.clean[0, task.positions["end"][0]]) == "to"


def test_a_real_tokenizer_of_that_kind_is_taken(stories):
    she, he = (stories.tokenizer.convert_tokens_to_ids(f"▁{word}") for word in ("she", "he"))
    pairs = [
        Drawn(f"{who} was happy and", f"{other} was happy and", right, wrong, {"who": 2})
        for who, other, right, wrong in (
            ("Lily", "Timmy", (" she",), (" he",)),
            ("Timmy", "Lily", (" he",), (" she",)),
        )
    ]
    task = build("who", stories, pairs)
    assert task.right.tolist() == [[she], [he]] and task.wrong.tolist() == [[he], [she]]
    names = stories.tokenizer.batch_decode(task.clean.gather(1, task.positions["who"][:, None]))
    assert names == ["Lily", "Timmy"]


def test_a_shared_ending_reads_every_answer_as_its_own_text_does(llama, stories):
    """Texts with one ending share what was read: as reading each in full says."""
    for model in (llama, stories):
        reader, tokenizer = Reader(model.tokenizer), model.tokenizer
        for text in ("Anna gave it to", "Ben gave it to", "Tom met Anna. Ben gave it to"):
            for word in (" he", " Anna", "."):
                before, whole = (
                    tokenizer(one, add_special_tokens=False)["input_ids"]
                    for one in (text, text + word)
                )
                assert reader.ids([text])[0] == before == whole[: len(before)]
                if len(whole) == len(before) + 1:
                    assert reader.following(text, [word]) == whole[len(before) :]


def test_an_answer_of_several_tokens_in_place_is_refused_with_its_row_and_number(llama, stories):
    with pytest.raises(
        UsageError,
        match=r"task gifts: prompt 2: the answer ' Zoe' is 4 tokens after '.* gave it to', not one",
    ):
        build("gifts", llama, [gift(), gift(right=" Zoe")])
    with pytest.raises(UsageError, match=r"prompt 1: the answer ' Nebuchadnezzar' is \d+ tokens"):
        build("kings", stories, [Drawn("Lily saw", "", (" Nebuchadnezzar",), ())])
    with pytest.raises(UsageError, match="the answer '' is 0 tokens"):
        build("nothing", stories, [Drawn("Lily saw", "", ("",), ())])


def test_an_answer_that_merges_with_the_prompt_is_refused(llama):
    """`▁t` + `o` is one token `▁to`: nothing follows `▁t`."""
    with pytest.raises(
        UsageError, match=r"prompt 1: the end of 'Ben gave it t', .*t', merges with the answer 'o'"
    ):
        build("cut", llama, [Drawn("Ben gave it t", "", ("o",), ())])
    with pytest.raises(UsageError, match=r"task cut: 1 prompts .* 1 cannot be used.* merges with"):
        collect("cut", llama, [Drawn("Ben gave it t", "", ("o",), ())], 1)


def test_twins_of_unequal_length_are_refused_with_their_row(llama):
    longer = gift()._replace(corrupted="Anna met Ben. Zoe gave it to")
    with pytest.raises(UsageError, match=r"prompt 2: 'Anna .*' has 9 tokens, its twin 12"):
        build("gifts", llama, [gift(), longer])
    with pytest.raises(UsageError, match="prompt 2: all have a twin, or none has"):
        build("gifts", llama, [gift(), gift()._replace(corrupted="")])


def test_prompts_without_twins_are_filled_up_and_positions_stay_theirs(characters):
    task = build(
        "letters",
        characters,
        [
            Drawn("ab", "", ("c",), ("d", "e"), {"a": 0}, {"x": "1"}),
            Drawn("abcd", "", ("c",), ("d",), {"a": 1}, {"x": "2"}),
        ],
    )
    assert task.clean.shape == (2, 5) and task.clean[0, 3:].tolist() == [0, 0]
    assert task.corrupted.numel() == 0 and task.part([1]).corrupted.numel() == 0
    assert task.positions["a"].tolist() == [1, 2] and task.positions["end"].tolist() == [2, 4]
    assert task.wrong[1].tolist()[1] == -1 and task.right.shape == (2, 1)
    part = task.part([1, 0])
    assert part.labels["x"] == ["2", "1"] and torch.equal(part.clean, task.clean.flip(0))


def test_bad_prompts_are_named(characters):
    good = Drawn("ab", "", ("c",), (), {}, {"x": "1"})
    with pytest.raises(UsageError, match="prompt 1: the answer 'cd' is 2 tokens"):
        build("own", characters, [good._replace(right=("cd",))])
    with pytest.raises(UsageError, match="position 'far' is character 9 of a prompt of 2"):
        build("own", characters, [good._replace(marks={"far": 9})])
    with pytest.raises(
        UsageError, match=r"prompt 2: every prompt has the same attributes: \['x'\], but 'ab' has"
    ):
        build("own", characters, [good, good._replace(labels={"y": "1"})])
    with pytest.raises(UsageError, match="no prompts"):
        build("own", characters, [])


def test_one_of_many_answers_that_merges_is_taken_by_itself_but_not_the_first(assets: Path):
    gpt2 = reads(assets / "gpt2_tokenizer")
    ids = {year: gpt2.tokenizer(year)["input_ids"][0] for year in ("00", "32")}
    task = build("years", gpt2, [Drawn("from 1311 to 13", "", ("32",), ("00",))])
    assert (task.right.tolist(), task.wrong.tolist()) == ([[ids["32"]]], [[ids["00"]]])
    with pytest.raises(UsageError, match=r"' 13', merges with the answer '00' to ' 1300'"):
        build("years", gpt2, [Drawn("from 1311 to 13", "", ("00",), ("32",))])
