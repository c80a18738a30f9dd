"""`saelab compare`: what it writes, prints and refuses."""

import json
import shutil
from pathlib import Path

import pytest

from apps.browser import comparison
from apps.cli import compare_text, main
from saelab.runs import RunFolder
from tests.apps.test_eval import last_line, trained
from tests.conftest import HOOK, SECOND_HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def runs(tiny_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Two seeds, and one of another width and k."""
    folder = tmp_path_factory.mktemp("compared")
    short = {"tokens": 5000}
    return [
        trained(tiny_cache, folder / "s0", **short),
        trained(tiny_cache, folder / "s1", seed=1, **short),
        trained(tiny_cache, folder / "wide", features=96, k=8, **short),
    ]


def test_two_runs_are_compared_and_the_first_holds_it(runs: list[Path], capsys):
    first, second = str(runs[0]), str(runs[2])
    assert main(["compare", first, second, "--tokens", "800", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "compare")
    assert json.loads((runs[0] / "compare-wide.json").read_text()) == result
    assert RunFolder(runs[0]).documents()["compare"] == [result]
    assert (result["first"], result["second"]) == (first, second)
    assert result["interval"] == "student" and result["second_folder"] == "../wide"
    by_metric = {row["metric"]: row for row in result["differences"]}
    assert (by_metric["l0"]["first"], by_metric["l0"]["second"]) == (4, 8)
    assert by_metric["fvu"]["verdict"] == "better"
    assert len(result["fired"]["second"]) == 96
    assert main(["compare", first, second, "--tokens", "800", "--no-dead"]) == 0
    printed = capsys.readouterr().out
    assert "Student's t over" in printed and "dead features" not in printed


def test_three_runs_are_compared_two_by_two_and_seeds_together(runs: list[Path], capsys):
    options = ["--tokens", "400", "--no-dead"]
    assert main(["compare", *map(str, runs), *options, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "comparisons")
    assert len(result["pairs"]) == 3
    (compared,) = result["configurations"]
    assert len(compared["first"]) == 2
    assert {row["verdict"] for row in compared["differences"]} == {"spread not known"}
    of_one, across, _ = result["pairs"]
    assert of_one["configurations"] is None and across["configurations"] == compared
    assert "spread not known, with 2 and 1 seeds" in across["sentences"]["configurations"]
    assert not of_one["start"]["same"] and of_one["start"]["first"]["value"] is not None


def test_two_groups_are_compared_seed_by_seed_and_each_is_one_configuration(
    runs: list[Path], tmp_path: Path, capsys
):
    options = ["--tokens", "400", "--no-dead", "--json"]
    pattern = str(runs[0].parent / "s[01]")
    assert main(["compare", pattern, "--against", str(runs[2]), *options]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "comparisons")
    assert [pair["first"] for pair in result["pairs"]] == [str(runs[0])]
    assert result["configurations"][0]["first"] == [str(run) for run in runs[:2]]
    mixed = ["compare", str(runs[0]), str(runs[2]), "--against", str(runs[1])]
    assert main(mixed) == 2 and "differ by more than their seed" in last_line(capsys)
    assert main(["compare", str(runs[0]), str(runs[2]), "--against", str(runs[0])]) == 2
    assert "in both groups" in last_line(capsys)
    assert main(["compare", str(tmp_path / "none-*"), str(runs[0])]) == 2
    assert "no run is named" in last_line(capsys)


def test_every_feature_is_told_how_often_it_comes_again(runs: list[Path], capsys):
    words = ["compare", "--stability", str(runs[0]), str(runs[1]), "--tokens", "800"]
    assert main([*words, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "stabilities")
    held = json.loads((runs[0] / "stability.json").read_text())
    check(held, "stability")
    del held["sha256"]
    assert held == result["runs"][0] and held["others"] == [str(runs[1])]
    columns = held["features"]
    assert {len(column) for column in columns.values()} == {64}
    assert set(columns["cosine"]) <= {0, 1} and held["means"]["cosine"]["null"] < 0.2
    assert main(words) == 0
    assert "fire alike" in capsys.readouterr().out


def test_what_cannot_be_compared_is_refused_with_the_reason(
    runs: list[Path], tiny_cache: Path, tmp_path: Path, capsys
):
    assert main(["compare", str(runs[0])]) == 2
    assert "two runs are needed" in last_line(capsys)
    assert main(["compare", str(runs[0]), str(runs[0])]) == 2
    assert "two runs are needed" in last_line(capsys)
    moved = tmp_path / "moved"
    shutil.copytree(runs[1], moved)
    header = json.loads((moved / "sae" / "sae.json").read_text())
    header["origin"]["hook"] = header["origin"]["target"] = SECOND_HOOK
    header.pop("sha256", None)
    (moved / "sae" / "sae.json").write_text(json.dumps(header))
    assert main(["compare", str(runs[0]), str(moved)]) == 2
    assert f"it reads {SECOND_HOOK}, not {HOOK}" in last_line(capsys)


def test_runs_of_one_name_in_two_folders_keep_their_own_comparisons(tmp_path: Path):
    here = RunFolder(tmp_path / "a" / "k32")
    names = [here.compared(tmp_path / folder / "k64").name for folder in ("a", "b")]
    assert names == ["compare-k64.json", "compare-b-k64.json"]


def test_labels_are_absorbed_or_left_out_with_the_reason(runs: list[Path], tmp_path: Path, capsys):
    file = tmp_path / "labels.csv"
    texts = [f"{word} {tail}" for word in ("alpha", "beta") for tail in map(str, range(120))]
    rows = [f'"{text}a",{text[0]}' for text in texts] + ["gamma,rare"] * 3
    file.write_text("\n".join(["text,label", *rows]))
    words = ["compare", str(runs[0]), str(runs[2]), "--tokens", "400", "--no-dead"]
    assert main([*words, "--labels", str(file), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "compare")
    part = result["absorption"]
    assert part["texts"] == 243 and "20 are needed" in part["left_out"]["rare"]
    assert {row["label"] for row in part["properties"]} | set(part["left_out"]) == {*"ab", "rare"}
    for row in part["properties"]:
        rates = [row[side]["rate"]["value"] for side in ("first", "second")]
        assert row["value"] == pytest.approx(rates[1] - rates[0])
    assert "absorbed (F1 of its latents)" in compare_text.pair(result)
    assert "Absorption" in comparison.absorption(result)
    for text, said in (("text,label\na\n", "line 2"), ("text,label\na,1\n", "has one label")):
        file.write_text(text)
        assert main([*words, "--labels", str(file)]) == 2
        assert said in last_line(capsys)
