"""`saelab reproduce`: the quick forms of the training papers run on one shared folder, print
claims, follow the schema."""

import json
from pathlib import Path

import pytest

from apps.cli import main
from tests.schemas import check
from training.reproduce import PAPERS


@pytest.fixture(scope="session")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of caches and runs that all quick forms share."""
    return tmp_path_factory.mktemp("reproduce")


@pytest.mark.slow
@pytest.mark.parametrize("paper", ["mutual-feature-choice", "g-sae", "abstopk"])
def test_the_quick_form_prints_claims_that_follow_the_schema(
    paper: str, work: Path, bundled: str, capsys
):
    assert main(["reproduce", paper, "--quick", "--out", str(work), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    check(result, "reproduce")
    assert result == json.loads((work / f"{paper}-quick.json").read_text())
    assert all(claim["value"] is not None for claim in result["claims"])
    assert all(claim["holds"] is None and claim["low"] is None for claim in result["claims"]), (
        "two seeds decide nothing"
    )
    assert main(["reproduce", paper, "--quick", "--out", str(work)]) == 0
    table = capsys.readouterr().out
    assert "undecided" in table and f"{result['claims'][0]['value']:.4g}" in table, (
        "a second run finds its runs and its numbers"
    )


@pytest.mark.parametrize(
    ("argv", "words"), [([], "no paper ''"), (["sparse-things"], "no paper 'sparse-things'")]
)
def test_an_unknown_paper_is_refused_with_the_list(
    argv: list[str], words: str, tmp_path: Path, capsys
):
    assert main(["reproduce", *argv, "--out", str(tmp_path / "work")]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert words in message and "there are mutual-feature-choice, g-sae, abstopk" in message
    assert not (tmp_path / "work").exists()


def test_a_paper_without_a_grid_is_told_so(tmp_path: Path, capsys):
    assert main(["reproduce", "circuits", "--grid", "--out", str(tmp_path / "work")]) == 2
    assert "circuits has no grid: leave --grid out" in capsys.readouterr().err


def test_a_file_in_the_folders_place_is_refused(tmp_path: Path, capsys):
    (tmp_path / "work").write_text("not a folder")
    assert main(["reproduce", "abstopk", "--quick", "--out", str(tmp_path / "work")]) == 2
    assert "work is a file, give a folder" in capsys.readouterr().err.strip().splitlines()[-1]


def test_help_names_every_paper(capsys):
    with pytest.raises(SystemExit):
        main(["reproduce", "--help"])
    shown = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert all(name in shown for name in PAPERS)
