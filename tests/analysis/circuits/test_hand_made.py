"""A task made by hand, in Python or in a file, gets all that a built-in one gets: scores, truth,
AUC, faithfulness, its document, its page."""

import json
import random
from pathlib import Path

import pytest
import torch

from apps.cli import main
from saelab import models
from saelab.analysis.circuits.heads.report import Plan, report
from saelab.errors import UsageError
from saelab.tasks import Drawn, attributes, build, collect, drawing, task
from saelab.tasks.parts import parts
from tests.apps.pages import opened_page
from tests.schemas import check

OWN = {"schema": "saelab/circuits/1", "saelab_version": "0", "seed": 0, "command": "python"}


@pytest.fixture(scope="module")
def bridge(bundled: str):
    """The bundled model."""
    return models.load(bundled)


def years() -> list[Drawn]:
    """40 pairs of one length, made of words of ours."""
    made = []
    for number in range(40):
        century, start = str(11 + number % 8), f"{5 + 2 * number:02d}"
        text = "The war lasted from the year {century}{year} to the year {century}"
        texts = [text.format(century=century, year=year) for year in (start, "01")]
        later = tuple(f"{year:02d}" for year in range(int(start) + 1, 100))
        earlier = tuple(f"{year:02d}" for year in range(int(start) + 1))
        made.append(Drawn(*texts, later, earlier))
    return made


@pytest.fixture(scope="module")
def own(bridge):
    """The pairs as a task."""
    return build("later", bridge, years(), "probability_difference")


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs as a file."""
    path = tmp_path_factory.mktemp("own") / "later.jsonl"
    names = ("prompt", "twin", "answers", "wrong")
    path.write_text("\n".join(json.dumps(dict(zip(names, pair, strict=False))) for pair in years()))
    return path


def counts(prompts: dict) -> dict[str, int]:
    """How many prompts there were, without their words."""
    return {name: n for name, n in prompts.items() if isinstance(n, int)}


def test_a_task_made_in_python_gets_truth_auc_and_faithfulness(bridge, own):
    fields = report(bridge, Plan(own, "eap", repeats=2))
    check(fields | OWN, "circuits")
    assert fields["task"] == "later" and fields["metric"] == "probability_difference"
    assert counts(fields["prompts"]) == {"scoring": 10, "repeats": 2, "held_out": 20}
    assert {(row["layer"], row["head"]) for row in fields["heads"][:2]} == {(3, 2), (3, 6)}
    assert fields["auc"] > 0.9 and fields["faithfulness"][2]["value"] > 0.8


def test_a_file_of_pairs_gets_the_same_from_the_command_and_a_page(
    bundled: str, file: Path, tmp_path: Path, monkeypatch
):
    from apps.browser import PLACES

    command = ["circuits", "--prompts", str(file), "--method", "eap", "--model", bundled]
    monkeypatch.chdir(tmp_path)
    assert main([*command, "--repeats", "1"]) == 0
    document = json.loads(Path("circuits/later-eap/circuit.json").read_text())
    check(document, "circuits")
    assert counts(document["prompts"]) == {"scoring": 20, "repeats": 1, "held_out": 20}
    assert document["truth"]["kind"] == "measured" and document["metric"] == "logit_difference"
    monkeypatch.setenv(PLACES, json.dumps([str(tmp_path / "circuits")]))
    page = opened_page("circuits")
    body = "".join(element.proto.body for element in page.get("html"))
    assert "<h1>later</h1>" in body and len(page.get("plotly_chart")) == 1


def test_parts_of_given_prompts_share_none(bridge, own, file: Path):
    found = parts(own, bridge, n=6, n_held_out=100, repeats=3, seed=1)
    assert [len(part.clean) for part in (*found.scoring, found.held_out)] == [6, 6, 6, 20]
    rows = torch.cat([part.clean for part in (*found.scoring, found.held_out)]).tolist()
    assert len({tuple(row) for row in rows}) == 38
    again = parts(own, bridge, n=6, n_held_out=100, repeats=3, seed=1)
    other = parts(own, bridge, n=6, n_held_out=100, repeats=3, seed=2)
    assert torch.equal(found.held_out.clean, again.held_out.clean)
    assert not torch.equal(found.held_out.clean, other.held_out.clean)
    read = parts(file, bridge, n=6, n_held_out=100, repeats=3, seed=1)
    assert torch.equal(read.held_out.clean, found.held_out.clean)


def test_what_a_circuit_cannot_be_found_on_is_refused(bridge, own):
    for source, message in (
        (own.part(slice(3)), "task later: 3 prompts are too few: at least 6 are needed"),
        ("nowhere.json", "no file nowhere.json"),
        ("later", "unknown task 'later': tasks are ioi, .*, or name a file of prompts"),
        (build("gifts", bridge, attributes.rows("ioi", 8)), "task gifts: its prompts have no twin"),
        (
            build("alone", bridge, [one._replace(wrong=()) for one in years()]),
            "task alone: prompt 1 has no wrong answer: a logit difference needs one",
        ),
    ):
        with pytest.raises(UsageError, match=message):
            report(bridge, Plan(source, "eap"))


def test_a_task_of_one_kind_made_by_hand_equals_the_built_in(bridge):
    """The same words give the same numbers, whoever made the task."""
    rng = random.Random("greater-than/train/0")
    pairs = [drawing.greater_than(rng, False) for _ in range(200)]
    given = collect("greater-than", bridge, pairs, 8, "probability_difference")
    drawn = task("greater-than", bridge, n=8)
    assert torch.equal(given.clean, drawn.clean) and torch.equal(given.right, drawn.right)
