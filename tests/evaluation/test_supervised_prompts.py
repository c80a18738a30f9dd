"""Labelled prompts: positions, pairs, files, the bundled tasks."""

import json
from pathlib import Path

import pytest
import torch

from saelab.errors import UsageError
from saelab.evaluation.supervised import TASKS, Row, label, read, rows, split
from tests.conftest import ROOT


@pytest.fixture(scope="module")
def words(bundled: str):
    """The bundled model's tokenizer."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(ROOT / "data" / bundled)


@pytest.fixture(scope="module")
def characters(tiny_model: Path):
    """The tiny model's tokenizer: a token per byte."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_model)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_mark_the_right_tokens_and_twins_differ_in_one_attribute(task: str, words):
    found = rows(task, 30, seed=1, twins=True)
    prompts = label(found, words, TASKS[task].metric)
    n_attributes = len(prompts.labels)
    assert len(found) == 30 * (1 + n_attributes)
    said = {"ioi": {"io": "io", "s1": "s", "s2": "s"}, "greater-than": {"year": "year"}}
    said["docstring"] = {"answer": "answer", "previous": "previous"}
    for at, attribute in said[task].items():
        shown = words.batch_decode(prompts.tokens.gather(1, prompts.positions[at][:, None]))
        assert [text.strip() for text in shown] == prompts.labels[attribute], at
    for attribute in prompts.labels:
        source, target = prompts.pairs(attribute)
        assert source.tolist() == list(range(30))
        for i, j in zip(source.tolist(), target.tolist(), strict=True):
            differing = [name for name, values in prompts.labels.items() if values[i] != values[j]]
            assert differing == [attribute] and prompts.groups[i] == prompts.groups[j]


def test_tasks_repeat_with_the_seed_and_have_the_answers_of_their_text():
    assert rows("ioi", 5, 3) == rows("ioi", 5, 3) != rows("ioi", 5, 4)
    for row in rows("ioi", 20):
        assert row.prompt.count(row.wrong[0]) == 2 and row.prompt.count(row.answers[0]) == 1
    for row in rows("greater-than", 20):
        assert (
            min(row.answers) > row.attributes["year"] >= max(row.wrong)
            and len(row.answers) + len(row.wrong) == 100
        )


def test_prompts_are_padded_and_positions_shifted_past_the_first_token(characters):
    prompts = label(
        [
            Row("ab", ("c",), ("d", "e"), {"x": "1"}, {"a": 0}),
            Row("abcd", ("c",), ("d",), {"x": "2"}, {"a": 1}),
        ],
        characters,
    )
    assert prompts.tokens.shape == (2, 5) and prompts.tokens[0, 3:].tolist() == [0, 0]
    assert prompts.positions["a"].tolist() == [1, 2] and prompts.positions["end"].tolist() == [2, 4]
    assert prompts.wrong[1].tolist()[1] == -1 and prompts.right.shape == (2, 1)


def test_pairs_use_each_prompt_once_and_stay_within_their_group(characters):
    values = [("p", "1", ""), ("p", "2", ""), ("p", "1", ""), ("q", "1", ""), ("p", "2", "other")]
    prompts = label(
        [Row("ab", ("c",), (), {"a": a, "b": b}, {}, group) for a, b, group in values], characters
    )
    assert torch.stack(prompts.pairs("b"), 1).tolist() == [[0, 1]]
    assert torch.stack(prompts.pairs("a"), 1).tolist() == [[0, 3]]


def test_halves_share_no_group():
    found = rows("ioi", 11, twins=True)
    halves = split(found, seed=2)
    assert not {row.group for row in halves[0]} & {row.group for row in halves[1]}
    assert sorted(map(repr, halves[0] + halves[1])) == sorted(map(repr, found))
    with pytest.raises(UsageError, match="1 independent prompts cannot be split"):
        split(found[:1])


def test_files(tmp_path: Path):
    good = {
        "prompt": "ab",
        "answers": ["c"],
        "attributes": {"x": 1},
        "positions": {"first": 0},
        "group": 7,
    }
    path = tmp_path / "set.jsonl"
    path.write_text(
        json.dumps(good)
        + "\n\n"
        + json.dumps({"prompt": "ab", "answer": "c", "attributes": {"x": 2}})
        + "\n"
    )
    assert read(path) == [
        Row("ab", ("c",), (), {"x": "1"}, {"first": 0}, "7"),
        Row("ab", ("c",), (), {"x": "2"}),
    ]
    for bad in (
        '{"prompt": "ab"}',
        "not json",
        '{"prompt": "ab", "answer": "c", "attributes": 3}',
        "[1]",
    ):
        path.write_text(json.dumps(good) + "\n" + bad + "\n")
        with pytest.raises(UsageError, match="line 2 is no labelled prompt"):
            read(path)


def test_bad_rows_are_named(characters):
    good = Row("ab", ("c",), (), {"x": "1"})
    with pytest.raises(UsageError, match="the answer 'cd' is 2 tokens"):
        label([good._replace(answers=("cd",))], characters)
    with pytest.raises(UsageError, match="position 'far' is character 9 of a prompt of 2"):
        label([good._replace(positions={"far": 9})], characters)
    with pytest.raises(UsageError, match=r"same attributes: \['x'\], but 'ab' has \['y'\]"):
        label([good, good._replace(attributes={"y": "1"})], characters)
    with pytest.raises(UsageError, match="no prompts"):
        label([], characters)
