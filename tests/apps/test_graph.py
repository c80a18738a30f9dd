"""`saelab graph`: its documents, its text, and what it refuses."""

import json
import shutil
from pathlib import Path

import jsonschema
import pytest

from apps.cli import main
from saelab import models
from saelab.files import read_json
from tests.analysis.dictionaries import dictionary, transcoder
from tests.conftest import make_model
from tests.schemas import check

PROMPTS = [{"prompt": "abcab", "answers": ["c"]}, {"prompt": "xyzxy", "answers": ["z"]}]


@pytest.fixture(scope="module")
def transcoders(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of a run for each layer of the tiny model, and a file of prompts beside them."""
    folder = tmp_path_factory.mktemp("transcoders")
    save(folder / "set", tiny_model)
    lines = "".join(json.dumps(row) + "\n" for row in PROMPTS)
    (folder / "prompts.jsonl").write_text(lines)
    return folder


def save(folder: Path, model: Path) -> None:
    identity = models.identity(models.load(model))
    for layer in range(2):
        sae = transcoder(layer, seed=layer)
        sae.origin = sae.origin.__class__(*sae.origin.hooks, model=identity)
        sae.save(folder / f"layer{layer}" / "sae")


def graph(*words: str | Path) -> int:
    return main(["graph", *map(str, words)])


def test_prompts_of_a_file_are_traced_and_written_in_both_forms(transcoders, tmp_path, capsys):
    out = tmp_path / "graphs"
    set_, file = transcoders / "set", transcoders / "prompts.jsonl"
    assert graph("--run", set_, "--prompts", file, "--ablated", 3, "--out", out, "--json") == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "graphs")
    assert result == read_json(out / "graphs.json") and len(result["prompts"]) == 2
    assert result["faithfulness"]["held"]["slope"]["value"] == pytest.approx(1, abs=1e-2)
    for number in range(2):
        mine = read_json(out / f"prompt-{number}.graph.json")
        check(mine, "graph")
        foreign = read_json(out / "circuit-tracer" / f"prompt-{number}.json")
        assert all(mine[name] == foreign[name] for name in foreign) and len(foreign) == 5
        assert any("qk_tracing_results" in node for node in mine["nodes"])
    listed = read_json(out / "circuit-tracer" / "graph-metadata.json")["graphs"]
    assert [metadata["slug"] for metadata in listed] == ["prompt-0", "prompt-1"]
    broken = {**result, "places": 3}
    with pytest.raises(jsonschema.ValidationError):
        check(broken, "graphs")


def test_one_prompt_is_told_to_people(transcoders, tmp_path, capsys):
    words = ("--prompt", "abcab", "--ablated", 2, "--out", tmp_path / "g")
    assert graph("--run", transcoders / "set" / "layer1", *words) == 0
    shown = capsys.readouterr()
    assert "replacement" in shown.out and "the model itself" in shown.out
    assert f"next: saelab browse {tmp_path / 'g'}" in shown.out
    assert "no transcoder for layer 0: the MLP there is traced as error" in shown.err


def test_runs_of_two_models_are_not_one_set(transcoders, tiny_model, tmp_path, capsys):
    other = make_model(tmp_path / "other", seed=1)
    save(tmp_path / "theirs", other)
    mixed = ("--run", transcoders / "set" / "layer0", "--run", tmp_path / "theirs" / "layer1")
    assert graph(*mixed, "--prompt", "abc") == 2
    said = capsys.readouterr().err
    assert "theirs/layer1" in said and "layer0" in said


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        ((), "nothing to trace: give --prompt TEXT, --prompts FILE or --task TASK"),
        (("--prompt", ""), "the prompt is empty"),
        (("--prompt", "a" * 50), "the prompt has 51 tokens, the model's context 32"),
        (("--prompts", "none.csv"), "no file none.csv"),
        (("--prompt", "abc", "--nodes", "1.5"), "nodes=1.5"),
    ],
)
def test_what_cannot_be_traced_is_refused(transcoders, words, sentence, capsys):
    assert graph("--run", transcoders / "set", *words) == 2
    assert sentence in capsys.readouterr().err


def test_an_sae_where_a_transcoder_is_needed_is_refused(transcoders, tiny_model, tmp_path, capsys):
    sae = dictionary("blocks.0.hook_mlp_out")
    identity = models.identity(models.load(tiny_model))
    sae.origin = sae.origin.__class__("blocks.0.hook_mlp_out", model=identity)
    sae.save(tmp_path / "sae")
    assert graph("--run", tmp_path, "--prompt", "abc") == 2
    assert "name a transcoder (`saelab train --target blocks.0" in capsys.readouterr().err


def test_another_models_dictionaries_are_refused(transcoders, tmp_path, capsys):
    other = make_model(tmp_path / "other", seed=1)
    assert graph("--run", transcoders / "set", "--model", other, "--prompt", "abc") == 2
    assert "is another model by its weights" in capsys.readouterr().err


def test_supernodes_are_made_of_what_fires_together_in_the_runs_cache(tiny_run, tmp_path, capsys):
    words = ("--prompt", "abcab", "--ablated", 2, "--apart", "--supernodes", 2000, "--json")
    assert graph("--run", tiny_run, *words, "--out", tmp_path / "g") == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "graphs")
    one = read_json(tmp_path / "g" / "prompt-0.graph.json")
    check(one, "graph")
    names = {node["node_id"] for node in one["nodes"]}
    assert all({*ids} <= names and len(ids) > 1 for _, *ids in one["qParams"]["supernodes"])
    assert result["supernodes"]["grouped"]["value"] == pytest.approx(one["grouped"]["share"])
    assert {"patterns", "norms", "features", "mlps"} < {*result["faithfulness"]}


def test_two_dictionaries_of_one_layer_are_refused(transcoders, tmp_path, capsys):
    twice = tmp_path / "twice"
    shutil.copytree(transcoders / "set", twice)
    shutil.copytree(twice / "layer0", twice / "again")
    assert graph("--run", twice, "--prompt", "abc") == 2
    assert "more than one SAE explains blocks.0.mlp.hook_out" in capsys.readouterr().err


def test_no_run_is_asked_for(capsys):
    assert graph("--prompt", "abc") == 2
    assert "no run named: saelab graph --run RUN" in capsys.readouterr().err
