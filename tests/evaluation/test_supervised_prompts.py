"""Labelled prompts: positions, pairs, halves, the bundled tasks."""

from pathlib import Path

import pytest
import torch

from saelab.errors import UsageError
from saelab.evaluation.supervised import TASKS, pairs, rows, split
from saelab.tasks import Drawn, build
from tests.tasks.tokenizers import reads


@pytest.fixture(scope="module")
def words(bundled: str):
    """Something with the bundled model's tokenizer."""
    return reads(Path("data") / bundled)


@pytest.fixture(scope="module")
def characters(tiny_model: Path):
    """Something with the tiny model's tokenizer: a token per byte."""
    return reads(tiny_model)


@pytest.mark.parametrize("task", TASKS)
def test_tasks_mark_the_right_tokens_and_twins_differ_in_one_attribute(task: str, words):
    found = rows(task, 30, seed=1, twins=True)
    prompts = build(task, words, found, TASKS[task].metric)
    n_attributes = len(prompts.labels)
    assert len(found) == 30 * (1 + n_attributes)
    said = {"ioi": {"io": "io", "s1": "s", "s2": "s"}, "greater-than": {"year": "year"}}
    said["docstring"] = {"answer": "answer", "previous": "previous"}
    for at, attribute in said[task].items():
        shown = words.tokenizer.batch_decode(
            prompts.clean.gather(1, prompts.positions[at][:, None])
        )
        assert [text.strip() for text in shown] == prompts.labels[attribute], at
    for attribute in prompts.labels:
        source, target = pairs(prompts, attribute)
        assert source.tolist() == list(range(30))
        for i, j in zip(source.tolist(), target.tolist(), strict=True):
            differing = [name for name, values in prompts.labels.items() if values[i] != values[j]]
            assert differing == [attribute] and prompts.groups[i] == prompts.groups[j]


def test_tasks_repeat_with_the_seed_and_have_the_answers_of_their_text():
    assert rows("ioi", 5, 3) == rows("ioi", 5, 3) != rows("ioi", 5, 4)
    for row in rows("ioi", 20):
        assert row.clean.count(row.wrong[0]) == 2 and row.clean.count(row.right[0]) == 1
    for row in rows("greater-than", 20):
        assert (
            min(row.right) > row.labels["year"] >= max(row.wrong)
            and len(row.right) + len(row.wrong) == 100
        )


def test_pairs_use_each_prompt_once_and_stay_within_their_group(characters):
    values = [("p", "1", ""), ("p", "2", ""), ("p", "1", ""), ("q", "1", ""), ("p", "2", "other")]
    drawn = [Drawn("ab", "", ("c",), (), {}, {"a": a, "b": b}, group) for a, b, group in values]
    prompts = build("letters", characters, drawn)
    assert torch.stack(pairs(prompts, "b"), 1).tolist() == [[0, 1]]
    assert torch.stack(pairs(prompts, "a"), 1).tolist() == [[0, 3]]


def test_halves_share_no_group():
    found = rows("ioi", 11, twins=True)
    halves = split(found, seed=2)
    assert not {row.group for row in halves[0]} & {row.group for row in halves[1]}
    assert sorted(map(repr, halves[0] + halves[1])) == sorted(map(repr, found))
    with pytest.raises(UsageError, match="1 independent prompts cannot be split"):
        split(found[:1])
