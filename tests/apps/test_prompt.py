"""`saelab prompt` and `saelab steer`: what they print, and what they refuse."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest
import torch

from apps.cli import main
from saelab import prompting
from saelab.analysis import prompts, steering
from saelab.analysis.dark_matter import fit, map_file
from saelab.tasks import files
from tests.conftest import HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def run(tiny_run: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Run and cache, as they are typed; the run keeps a linear map of its errors."""
    folder = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("prompt") / "run"))
    bench = prompting.open(folder, cache=tiny_cache)
    x = torch.cat([chunk.x for chunk in bench.cache.counted(HOOK, "train", 2000)])
    with torch.no_grad():
        map = fit(x, bench.sae(x))
    map_file.write(bench.folder.dark_matter_map, map, bench.folder.sae_digest())
    return [str(folder), "--cache", str(tiny_cache)]


def printed(capsys, *words: str) -> str:
    capsys.readouterr()
    assert main([*words]) == 0
    return capsys.readouterr().out


def test_everything_that_can_be_asked_of_a_text_follows_the_schema(run, capsys):
    folder, *cache = run
    asked = ["prompt", folder, "alpha ", *cache, "--by", "effect", "--features", "3,5", "--exact"]
    asked += ["--next", "b", "--against", "g", "--compare", "gamma"]
    document = json.loads(printed(capsys, *asked, "--json"))
    check(document, "prompt")
    bench = prompting.open(folder, cache=cache[1])
    reading = prompting.read(bench, "alpha ")
    for row in document["features"]:
        at = prompts.on_token(reading.table, row["position"], "effect")
        pairs = {int(reading.table.feature[i]): float(reading.table.effect[i]) for i in at}
        assert row["effect"] == pytest.approx(pairs[row["feature"]], rel=1e-4, abs=1e-7)
    sums = document["attribution"]["sums"]
    assert sum(sums.values()) == pytest.approx(document["attribution"]["logit"], abs=1e-3)
    assert len(document["errors"]["tokens"]) == len(document["tokens"]) == 7
    assert document["comparison"]["differs_at"] == 1 and len(document["exact"]["pairs"]) == 10
    with pytest.raises(jsonschema.ValidationError):
        check({**document, "exact": {**document["exact"], "pairs": [{"position": 1}]}}, "prompt")
    text = printed(capsys, *asked)
    for said in (
        "estimated effect on the loss in nats",
        "rank correlation",
        "logit of b less that",
    ):
        assert said in text
    assert "the texts differ from token 1 on" in text and "error, linear, rest" in text


def test_one_token_and_a_text_from_a_file_with_what_stands_for_blanks(run, tmp_path, capsys):
    folder, *cache = run
    file = tmp_path / "text.txt"
    file.write_text("a\n b<|endoftext|>")
    text = printed(capsys, "prompt", folder, "--file", str(file), *cache, "--token", "2")
    assert "token 2, ↵: features by value" in text and "16 tokens" not in text
    whole = printed(capsys, "prompt", folder, "--file", str(file), *cache)
    assert (
        len([line for line in whole.splitlines() if ": " in line and line[:4].strip().isdigit()])
        == 17
    )
    parsed = printed(capsys, "prompt", folder, "--file", str(file), *cache, "--parse-special")
    assert "5 tokens" in parsed  # a, line end, blank, b, and the token that the text spells


def test_steering_says_what_each_kind_writes_and_what_it_costs(run, capsys):
    folder, *cache = run
    line = ["steer", folder, "--feature", "3,7", "--add", "2,-1", "--text", "al", *cache]
    line += ["--new", "4", "--samples", "2", "--temperature", "1", "--loss", "300"]
    document = json.loads(printed(capsys, *line, "--json"))
    check(document, "steer")
    assert [edit["value"] for edit in document["edits"]] == [2, -1]
    assert len(document["steered"]) == len(document["random"][0]) == 2
    assert {"steered", "random 1", "others 2"} <= set(document["loss"]["changes"])
    text = printed(capsys, *line)
    assert "steered (add 3 2, add 7 -1)" in text and "random direction 2, as long" in text
    assert json.loads(printed(capsys, *line, "--json"))["steered"] == document["steered"]


def test_edits_that_change_nothing_say_why(run, capsys):
    folder, *cache = run
    line = ["steer", folder, "--feature", "3", "--text", "al", *cache, "--new", "3"]
    same = "all the same: a feature is scaled or ablated only where it fires"
    # Scaled by 1 a feature is as it was, as one that does not fire is by any number.
    assert same in printed(capsys, *line, "--scale", "1")
    assert same not in printed(capsys, *line, "--add", "0")


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Prompts of one's own: a pair, and two that have only what they need."""
    path = tmp_path_factory.mktemp("pairs") / "pairs.jsonl"
    rows = [
        {"clean": "alpha ", "corrupted": "gamma ", "answer": "b", "wrong": "g"},
        {"clean": "beta a", "answer": "b", "wrong": "g"},
        {"clean": "al", "answer": "b", "wrong": "g"},
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_of_prompts_of_ones_own_answers_are_attributed_and_twins_compared(run, pairs, capsys):
    folder, *cache = run
    line = ["prompt", folder, "--prompts", str(pairs), *cache, "--n", "2"]
    document = json.loads(printed(capsys, *line, "--json"))
    check(document, "prompt")
    first, second = document["prompts"]
    asked = ["prompt", folder, "alpha ", "--next", "b", "--against", "g", "--compare", "gamma "]
    alone = json.loads(printed(capsys, *asked, *cache, "--json"))
    assert {**first, "text": None} == {name: alone.get(name) for name in first}
    assert second["attribution"]["against"] == "g" and second["comparison"] is None
    with pytest.raises(jsonschema.ValidationError):
        check({**document, "prompts": [{**first, "tokens": 3}]}, "prompt")
    text = printed(capsys, *line)
    assert "prompt 1: alpha·" in text and text.count("logit of b less that of g") == 2
    gone = pairs.with_name("gone.csv")
    gone.write_text("clean,answer\nab,c\nab,cd\n")
    assert main(["prompt", folder, "--prompts", str(gone), *cache]) == 2
    assert "gone.csv, prompt 2: 'cd' cannot be the next token" in capsys.readouterr().err


def test_steering_is_measured_on_prompts_beside_random_directions(run, pairs, capsys):
    folder, *cache = run
    line = ["steer", folder, "--feature", "3", "--add", "2", "--prompts", str(pairs), *cache]
    document = json.loads(printed(capsys, *line, "--json"))
    check(document, "steer")
    task = document["task"]
    assert task["prompts"] == 2 and task["left_out"]["other_lengths"] == 1
    bench = prompting.open(folder, cache=cache[1])
    given = files.given(pairs, bench.model, needs=("answers",)).task
    edits = [steering.Edit(3, "add", 2.0)]
    found = steering.steer(bench.model, given, bench.sae, edits)
    assert task["change"]["value"] == pytest.approx(found.change.value)
    assert task["change"]["null"] == pytest.approx(float(found.random_change.mean()))
    with pytest.raises(jsonschema.ValidationError):
        check({name: document[name] for name in document if name != "task"}, "steer")
    text = printed(capsys, *line)
    assert "add 3 2, on 2 prompts of pairs" in text and "left out: 1 of another length" in text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["prompt", "RUN"], 'give one text: saelab prompt RUN "text"'),
        (["prompt", "RUN", "a", "--file", "b"], "give one text"),
        (["prompt", "RUN", "--file", "nowhere.txt"], "nowhere.txt cannot be read as UTF-8 text"),
        (
            ["prompt", "RUN", "x" * 50],
            "the text has 50 tokens, the model's context has room for 31",
        ),
        (["prompt", "RUN", "ab", "--token", "3"], "--token 3: the text has tokens 1 to 2"),
        (["prompt", "RUN", "a", "--task", "ioi"], "give one text"),
        (["prompt", "RUN", "--task", "x.csv"], "give a file as --prompts x.csv"),
        (["prompt", "RUN", "--prompts", "x.csv"], "no file x.csv: --prompts takes a file of"),
        (
            ["steer", "RUN", "--feature", "1", "--ablate", "--task", "ioi", "--at", "3"],
            "--at: on prompts of a task every token but the first is edited",
        ),
        (
            ["steer", "RUN", "--feature", "1", "--ablate", "--task", "add"],
            "unknown task 'add': tasks are ioi",
        ),
        (["prompt", "RUN", "a", "--next", "bc"], "'bc' cannot be the next token"),
        (["prompt", "RUN", "a", "--against", "b"], "name that with --next"),
        (
            ["prompt", "RUN", "a", "--features", "99"],
            "there is no 99; this SAE has features 0 to 63",
        ),
        (["prompt", "RUN", "a", "--compare", "a"], "the same tokens"),
        (["prompt", "RUN", "a", "--model", "gone"], "gone"),
        (["steer", "RUN", "--feature", "1", "--ablate"], "no text to continue"),
        (["steer", "RUN", "--text", "a", "--ablate"], "no feature named"),
        (["steer", "RUN", "--text", "a", "--feature", "1"], "named: none"),
        (["steer", "RUN", "--text", "a", "--feature", "x", "--ablate"], "--feature x: give whole"),
        (
            ["steer", "RUN", "--text", "a", "--feature", "1", "--scale", "2", "--ablate"],
            "named: --scale, --ablate",
        ),
        (
            ["steer", "RUN", "--text", "a", "--feature", "1,2,3", "--clamp", "1,2"],
            "--clamp has 2 values for 3 features",
        ),
        (["steer", "RUN", "--text", "a", "--feature", "1", "--clamp", "nan"], "to nan: no number"),
        (
            ["steer", "RUN", "--text", "a", "--feature", "1", "--ablate", "--new", "40"],
            r"2 \+ 40 tokens are more than the model's context of 32",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused_in_one_line(run, words, message, capsys):
    line = [run[0] if word == "RUN" else word for word in words]
    assert main([*line, *run[1:]]) == 2
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert message.replace("\\", "") in last and last.startswith(f"saelab {words[0]}: ")
