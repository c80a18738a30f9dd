"""Circuit tasks: twins of equal length, answers right by their text alone, a metric checked by
hand, refusals with numbers."""

import random
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from saelab import models
from saelab.errors import UsageError
from saelab.tasks import Task, build, drawing, measure, task
from saelab.tasks.answers import Metric
from saelab.tasks.drawing import Drawn

NAMES = [*drawing.GENERATORS]


@pytest.fixture(scope="module")
def bridge(bundled: str):
    """The bundled model."""
    return models.load(bundled)


@pytest.fixture(scope="module")
def gpt2(assets: Path):
    """Nothing but GPT-2's tokenizer."""
    from transformers import AutoTokenizer

    return SimpleNamespace(tokenizer=AutoTokenizer.from_pretrained(assets / "gpt2_tokenizer"))


def toy(metric: Metric) -> Task:
    """Two prompts over a vocabulary of four: answers 0 and 1 against 2; 3 against 0 and 1."""
    tokens = torch.zeros(2, 3, dtype=torch.int64)
    right, wrong = torch.tensor([[0, 1], [3, -1]]), torch.tensor([[2, -1], [0, 1]])
    return Task("toy", tokens, tokens, right, wrong, metric, {}, {})


def test_the_metric_is_what_a_hand_computes():
    logits = torch.log(
        torch.tensor([[1.0, 4.0, 2.0, 1.0], [1.0, 1.0, 4.0, 2.0]])
    )  # probabilities in eighths
    logit, probability = (
        measure(toy("logit_difference"), logits),
        measure(toy("probability_difference"), logits),
    )
    two = torch.tensor(2.0).log()
    torch.testing.assert_close(
        logit, torch.stack([two - two, two])
    )  # mean of log 1 and log 4 is log 2
    torch.testing.assert_close(probability, torch.tensor([5 / 8 - 2 / 8, 2 / 8 - 2 / 8]))
    longer = torch.cat([torch.randn(2, 2, 4), logits[:, None]], 1)
    torch.testing.assert_close(measure(toy("logit_difference"), longer), logit)


def test_padding_is_not_an_answer():
    logits = torch.tensor(
        [[0.0, 0.0, 0.0, 9.0], [0.0, 0.0, 0.0, 0.0]]
    )  # index -1 would read the last word
    assert measure(toy("logit_difference"), logits).tolist() == [0.0, 0.0]


@pytest.mark.parametrize("split", ["train", "held-out"])
@pytest.mark.parametrize("name", NAMES)
def test_tasks_fit_two_tokenizers(bridge, gpt2, name: str, split: str):
    for model in (bridge, gpt2):
        drawn = task(name, model, n=30, seed=1, split=split)
        assert (
            drawn.clean.shape == drawn.corrupted.shape == (30, int(drawn.positions["end"][0]) + 1)
        )
        assert drawn.clean.dtype == drawn.right.dtype == torch.int64
        assert (drawn.clean[:, 0] == model.tokenizer.bos_token_id).all()
        assert len({tuple(row) for row in drawn.clean.tolist()}) == 30
        assert (drawn.clean != drawn.corrupted).any(1).all() and torch.equal(
            drawn.clean[:, -1], drawn.corrupted[:, -1]
        )
        assert all(len(values) == 30 for values in drawn.labels.values())
        answers = zip(drawn.right.tolist(), drawn.wrong.tolist(), strict=True)
        assert not any(set(right) & set(wrong) - {-1} for right, wrong in answers)


def test_the_same_seed_draws_the_same_and_another_does_not(bridge):
    first, again, other = (task("ioi", bridge, n=10, seed=seed).clean for seed in (3, 3, 4))
    assert torch.equal(first, again) and (
        first.shape != other.shape or not torch.equal(first, other)
    )
    assert (
        task("ioi", bridge, n=10).part(slice(2, 5)).labels["io"]
        == task("ioi", bridge, n=10).labels["io"][2:5]
    )


def test_held_out_prompts_come_from_templates_that_training_never_saw(bridge):
    for name in ("ioi", "greater-than", "docstring", "induction"):
        train, held = (
            set(task(name, bridge, n=40, split=split).labels["template"])
            for split in ("train", "held-out")
        )
        assert not train & held and len(held) <= 4
    agreed = [
        set(task("agreement", bridge, n=40, split=split).labels["subject"])
        for split in ("train", "held-out")
    ]
    assert not {word.removesuffix("s") for word in agreed[0]} & {
        word.removesuffix("s") for word in agreed[1]
    }


def words(model, drawn: Task, position: str) -> list[str]:
    """The token that stands at a named position of each clean prompt."""
    tokens = drawn.clean.gather(1, drawn.positions[position][:, None])
    return [model.tokenizer.decode(row).strip() for row in tokens]


def test_named_positions_point_at_their_words(bridge):
    ioi, later = task("ioi", bridge, n=30), task("greater-than", bridge, n=30)
    assert words(bridge, ioi, "io") == ioi.labels["io"]
    assert words(bridge, ioi, "s1") == words(bridge, ioi, "s2") == ioi.labels["s"]
    assert (ioi.positions["s1"] < ioi.positions["s2"]).all()
    order = [
        "ABB" if io < s else "BAB"
        for io, s in zip(ioi.positions["io"], ioi.positions["s1"], strict=True)
    ]
    assert order == ioi.labels["order"] and len(set(order)) == 2
    assert (
        words(bridge, later, "year") == later.labels["year"]
        and words(bridge, later, "end") == later.labels["century"]
    )
    for name, position in (("docstring", "definition"), ("induction", "first")):
        drawn = task(name, bridge, n=30)
        assert words(bridge, drawn, position) == drawn.labels["answer"]
    documented = task("docstring", bridge, n=30)
    assert words(bridge, documented, "previous") == words(bridge, documented, "documented")


def test_answers_follow_from_the_clean_text_and_not_from_the_twin():
    rng = random.Random(0)
    for held_out in (False, True):
        for _ in range(50):
            later, number = drawing.greater_than(rng, held_out), drawing.agreement(rng, held_out)
            start = int(later.labels["year"])
            assert [int(y) for y in later.wrong + later.right] == list(range(100)) and int(
                later.right[0]
            ) == start + 1
            assert (
                number.right
                == drawing.VERBS["plural" if number.clean.split()[1].endswith("s") else "singular"]
            )
            for name in ("ioi", "docstring", "induction"):
                drawn = drawing.GENERATORS[name](rng, held_out)
                assert drawn.right[0] in drawn.clean and drawn.right[0] not in drawn.wrong


def test_the_bundled_model_tells_clean_from_corrupted(bridge):
    for name in ("ioi", "greater-than", "docstring", "induction"):
        drawn = task(name, bridge, n=60, split="held-out")
        clean, corrupted = (
            measure(drawn, bridge(drawn.clean)),
            measure(drawn, bridge(drawn.corrupted)),
        )
        assert (clean > 0).float().mean() > 0.75 and clean.mean() > corrupted.mean() + 0.3


def test_a_task_that_cannot_be_drawn_is_refused(bridge, assets: Path):
    with pytest.raises(
        UsageError,
        match="unknown task 'ui': tasks are ioi, greater-than, docstring, induction, agreement",
    ):
        task("ui", bridge)
    with pytest.raises(
        UsageError, match="n=0, split='test': n must be at least 1, and split `train` or `held-out`"
    ):
        task("ioi", bridge, n=0, split="test")  # type: ignore[arg-type]
    llama = models.load(assets / "stories260K")
    with pytest.raises(
        UsageError,
        match=r"task ioi: 20 prompts .* this tokenizer gives 0; 1200 cannot .*: .* tokens",
    ):
        task("ioi", llama, n=20)


def test_given_prompts_are_taken_or_refused_whole(bridge):
    def pair(clean: str, corrupted: str, right: str = " Mary", wrong: str = " John") -> Drawn:
        return Drawn(clean, corrupted, (right,), (wrong,), {}, {})

    good = pair(
        "When Mary and John went, John gave it to", "When Susan and John went, Mary gave it to"
    )
    assert build("own", bridge, [good, good]).clean.shape[0] == 2
    with pytest.raises(
        UsageError, match=r"task own: prompt 2: the answer ' Nebuchadnezzar' is \d+ tokens after"
    ):
        build("own", bridge, [good, good._replace(right=(" Nebuchadnezzar",))])
    with pytest.raises(
        UsageError, match=r"task own: prompt 1: 'When Mary .*' has \d+ tokens, its twin \d+"
    ):
        build("own", bridge, [good._replace(corrupted="When Mary left, John gave it to")])
    with pytest.raises(
        UsageError,
        match="prompts must all have the same number of tokens, and these are 1 of 4 tokens, "
        "1 of 5",
    ):
        build(
            "own",
            bridge,
            [
                pair("When Mary and", "When John and"),
                pair("When Mary and John", "When John and Mary"),
            ],
        )
    with pytest.raises(
        UsageError, match=r"the end of 'in the year 1', '1', merges with the answer '32'"
    ):
        build("own", bridge, [pair("in the year 1", "in the year 2", "32", "31")])
