"""`saelab circuits --heads`: its document, its text, what it refuses, and where it is shown."""

import json
from pathlib import Path

import jsonschema
import pytest

import saelab
from apps.browser import heads as page_of
from apps.cli import heads as text_of
from apps.cli import main
from saelab.files import read_json
from saelab.origin import Origin
from tests.analysis.dictionaries import RESIDUAL, Z, dictionary
from tests.schemas import check


@pytest.fixture(scope="module")
def runs(tiny_model: Path, tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an SAE on heads, `z`, and one on the residual stream, `r`."""
    folder = tmp_path_factory.mktemp("heads")
    for name, hook in (("z", Z), ("r", RESIDUAL)):
        sae = dictionary(hook, seed=3)
        sae.origin = Origin(hook, cache=str(tiny_cache))
        sae.save(folder / name / "sae")
    return folder


def heads(tiny_model: Path, run: Path, *words: str | Path) -> int:
    named = ("--heads", run, "--model", tiny_model, "--tokens", 300)
    return main(["circuits", *map(str, (*named, *words))])


def test_the_document_and_its_twin(tiny_model, runs, capsys):
    assert heads(tiny_model, runs / "z", "--run", runs / "r", "--json") == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "heads")
    assert result == read_json(runs / "z" / "heads.json")
    assert len(result["heads"]) == 4 and result["features"] and result["traced"]
    for row in result["features"]:
        assert sum(row["by_head"]) == pytest.approx(1) and sum(row["places"].values())
        assert row["share"]["value"] == pytest.approx(max(row["by_head"]))
    for row in result["traced"]:
        parts = sum(part["value"] for part in row["parts"])
        assert abs(row["value"] - parts - row["errors"] - row["bias"]) < 10 * abs(row["value"])
        assert all(part["lost"] for part in row["parts"])
    lengths = result["sequences"]["prefixes"]
    assert lengths and all(len(row["by_prefix"]) == len(lengths) for row in result["heads"])
    firings = [row["firings"] for row in result["features"]]
    assert firings == sorted(firings, reverse=True)
    with pytest.raises(jsonschema.ValidationError):
        check({**result, "agreement": 0.5}, "heads")


def test_people_are_told_and_what_cannot_be_is_refused(tiny_model, runs, capsys):
    assert heads(tiny_model, runs / "z") == 0
    told = capsys.readouterr().out
    assert "induction" in told and "rank correlation" in told and "h3" in told
    assert heads(tiny_model, runs / "r") == 2
    assert "no place of heads" in capsys.readouterr().err
    twice = ("--run", runs / "r", "--run", runs / "z")
    assert heads(tiny_model, runs / "z", *twice) == 2
    assert "name one --run, not 2" in capsys.readouterr().err


def test_a_notebook_and_the_runs_page_tell_the_same(tiny_model, runs, capsys):
    assert heads(tiny_model, runs / "z", "--json") == 0
    document = json.loads(capsys.readouterr().out)
    mine = saelab.open(runs / "z", tiny_model).heads(300)
    assert list(mine.kinds["value"]) == [
        share["value"] for one in document["heads"] for share in one["kinds"].values()
    ]
    assert list(mine.prefixes["value"]) == [
        share["value"] for one in document["heads"] for share in one["by_prefix"]
    ]
    assert list(mine.features["feature"]) == [one["feature"] for one in document["features"]]
    kept = read_json(runs / "z" / "heads.json")
    check(kept, "heads")
    page = page_of.section(kept, "z")
    assert "Induction" not in page  # which none of these heads does
    kept["heads"][1]["called"] = ["induction"]
    assert "so many tokens before it match" in page_of.section(kept, "z")
    table = text_of.text(kept).split("\n\n")[1]
    assert table.startswith("induction") and "\nh1 " in table and "\nh0 " not in table
    for one in kept["heads"]:
        del one["by_prefix"]
    assert "Induction" not in page_of.section(kept, "z")  # of an earlier version
    first = kept["features"][0]
    assert f'href="/feature?run=z&amp;feature={first["feature"]}"' in page
    assert "after the same token" in page or "elsewhere" in page
