"""`saelab supervise`: the document, several runs, and what is wrong in one sentence."""

import json
import shutil
from itertools import product
from pathlib import Path

import jsonschema
import pytest
import torch

from apps.browser import PLACES
from apps.browser import supervised as section
from apps.browser.draw import number
from apps.cli import main
from saelab import SAE
from saelab.runs import RunFolder
from tests.apps.pages import opened_page
from tests.schemas import check


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A labelled prompt set for the tiny model, a token per character."""
    path = tmp_path_factory.mktemp("prompts") / "letters.jsonl"
    made = [
        {"prompt": f"{n}{a}{b}", "answers": [a], "attributes": {"x": a, "y": b}}
        for n, a, b in product("123456", "abcd", "efg")
    ]
    path.write_text("\n".join(map(json.dumps, made)) + "\n")
    return path


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    """A run folder to write into."""
    return Path(shutil.copytree(tiny_run, tmp_path / "run"))


def test_the_runs_own_frozen_decoder_is_a_control(run: Path, prompts: Path, capsys):
    words = ["supervise", str(run), "--prompts", str(prompts), "--changes", "1", "--json"]
    assert main([*words, "--controls"]) == 0
    shown = json.loads(capsys.readouterr().out)
    check(shown, "supervise")
    twin = SAE.load(RunFolder(run).frozen_decoder)
    assert not torch.equal(twin.W_enc, SAE.load(run).W_enc)
    scores = shown["sufficiency"]
    assert scores["frozen_trained"]["value"] not in (
        scores[name]["value"] for name in ("frozen_decoder", "random_init", "sae")
    )
    assert main(words) == 0
    without = json.loads(capsys.readouterr().out)["sufficiency"]
    assert "frozen_trained" not in without and without.items() <= scores.items()


def test_one_run_and_several(run: Path, prompts: Path, capsys: pytest.CaptureFixture):
    assert main(["supervise", str(run), "--prompts", str(prompts), "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    check(shown, "supervise")
    assert shown == json.loads((run / "supervise-letters.json").read_text())
    assert (
        shown["positions"] == ["end"]
        and shown["task"] == "letters"
        and shown["metric"] == "probability_difference"
    )
    with pytest.raises(jsonschema.ValidationError):
        check({**shown, "sufficiency": {"sae": shown["sufficiency"]["sae"]}}, "supervise")
    twin = shutil.copytree(run, run.with_name("twin"))
    assert (
        main(["supervise", str(run), str(twin), "--prompts", str(prompts), "--changes", "3"]) == 0
    )
    text = capsys.readouterr().out
    documents = [
        json.loads((folder / "supervise-letters.json").read_text()) for folder in (run, twin)
    ]
    check(
        {
            **{key: shown[key] for key in ("schema", "saelab_version", "seed", "command")},
            "runs": documents,
        },
        "supervise",
    )
    assert documents[0]["sufficiency"] == documents[1]["sufficiency"] == shown["sufficiency"]
    assert text.count("edit agreement by features changed") == 2
    assert all(
        f"\n{name} " in text
        for name in (
            "supervised",
            "supervised_mean",
            "sae",
            "frozen_decoder",
            "random_init",
            "null",
        )
    )


def test_the_overview_shows_what_was_compared(
    run: Path, prompts: Path, monkeypatch: pytest.MonkeyPatch
):
    assert main(["supervise", str(run), "--prompts", str(prompts)]) == 0
    found = json.loads((run / "supervise-letters.json").read_text())
    shown = section.section(found)
    assert (
        shown.count("<tr>") == 2 * (1 + len(found["sufficiency"])) + 1
        and "<b>this SAE</b>" in shown
    )
    assert (
        f"<b>{number(found['f1']['sae']['value'])}</b>" in shown
        and "edit agreement by features changed" in shown
    )
    edits = shown.split("edit agreement by features changed")[1]
    assert all(
        f'<td class="n">{number(row["edit_agreement"]["value"])}</td>' in edits
        for row in found["edits"]
    )
    assert "<i>" not in section.section({**found, "task": "<i>"})
    monkeypatch.setenv(PLACES, json.dumps([str(run)]))
    page = opened_page()
    assert "Supervised: letters" in "".join(e.proto.body for e in page.get("html"))


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "no run named: saelab supervise RUN"),
        (
            ["{run}", "--task", "addition"],
            "no task 'addition' has labels; there are ioi, greater-than, docstring",
        ),
        (["{run}", "--prompts", "letters.jsonl"], "no file letters.jsonl"),
        (["{run}", "--task", "x.csv"], "give a file as --prompts x.csv"),
        (["{run}", "--task", "ioi", "--prompts", "{prompts}"], "give one, a built-in task or a"),
        (
            ["{run}", "--prompts", "{prompts}", "--position", "middle"],
            "no position 'middle'; these prompts have end",
        ),
        (["{run}", "--prompts", "{prompts}", "--changes", "0"], "changes=0"),
        (["{run}", "--tests", "1"], "tests=1: give a whole number of at least 2"),
        (["{run}", "--task", "ioi"], "tokens after '"),
        (["nowhere"], "nowhere holds no SAE"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], said: str, run: Path, prompts: Path, capsys: pytest.CaptureFixture
):
    assert main(["supervise", *(a.format(run=run, prompts=prompts) for a in arguments)]) == 2
    assert said in capsys.readouterr().err.splitlines()[-1]


def test_a_transcoder_is_refused_before_any_prompt_is_run(run: Path, prompts: Path, capsys):
    sae = SAE.load(run)
    sae.transcoder = True
    sae.save(run / "sae")
    assert main(["supervise", str(run), "--prompts", str(prompts)]) == 2
    assert f"{run} is a transcoder" in capsys.readouterr().err
