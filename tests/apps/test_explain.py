"""`saelab explain` on a run that was really captured and trained."""

import json
import shutil

import pytest

from apps.cli import main
from saelab.explaining import store
from saelab.files import write_json
from saelab.outdated import outdated
from saelab.runs import RunFolder
from tests import schemas
from tests.explaining import stand_in


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    """A copy of the tiny run."""
    copy = tmp_path_factory.mktemp("explain") / "tiny"
    shutil.copytree(tiny_run, copy, ignore=shutil.ignore_patterns("checkpoints"))
    return copy


def test_explanations_are_written_printed_and_of_this_sae(run, capsys):
    options = ["--tokens", "6k", "--held-out", "1k", "--features", "0-3,9", "--json"]
    assert main(["explain", str(run), *options]) == 0
    printed = json.loads(capsys.readouterr().out)
    schemas.check(printed, "explain")
    kept = store.explanations(RunFolder(run))
    assert len(kept) == printed["live"] > 20
    assert [row["feature"] for row in printed["features"]] == [0, 1, 2, 3, 9]
    for row in printed["features"]:
        one = kept.get(row["feature"])
        assert row["text"] == (one and one.text)
    assert printed["rule"]["low"] > printed["token"]["high"] > 0.52 > printed["rule"]["null"]
    assert main(["info", str(run), "--verify", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    schemas.check(facts, "info")
    (file,) = (file for file in facts["files"] if file["file"] == "explanations.db")
    assert file["digest"] == "right"


def test_people_read_scores_beside_the_single_token_and_the_null(run, capsys):
    assert main(["explain", str(run), "--tokens", "3k", "--features", "1"]) == 0
    printed = capsys.readouterr().out
    assert "mean balanced accuracy of the" in printed
    assert "best single token" in printed and "null 0." in printed
    assert printed.splitlines()[-1] == f"next: saelab browse {run}"


def test_indexing_again_leaves_explanations(run, capsys):
    assert main(["explain", str(run), "--tokens", "3k"]) == 0
    before = RunFolder(run).explanations.read_bytes()
    assert main(["index", str(run), "--tokens", "1k"]) == 0
    assert RunFolder(run).explanations.read_bytes() == before


def test_those_of_an_earlier_sae_are_named(run, tmp_path, capsys):
    other = tmp_path / "other"
    shutil.copytree(run, other)
    assert main(["explain", str(other), "--tokens", "3k"]) == 0
    header = json.loads((other / "sae" / "sae.json").read_text())
    header["weights"]["sha256"] = "0" * 64
    write_json(other / "sae" / "sae.json", header)
    assert store.explanations(RunFolder(other)) == {}
    assert "explanations.db" in outdated(RunFolder(other))


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("64", "there is no 64; this SAE has features 0 to 63"),
        ("7-3", "there is no 7-3"),
        ("1,x", "x is no number and no range such as 7-12"),
        ("-1", "no number"),
    ],
)
def test_features_that_cannot_be_meant_are_refused(run, words, why, capsys):
    assert main(["explain", str(run), f"--features={words}"]) == 2
    assert why in capsys.readouterr().err.strip().splitlines()[-1]


def test_an_endpoint_is_asked_about_the_named_features_and_nothing_is_sent_unasked(run, capsys):
    with stand_in.serving() as server:
        assert main(["explain", str(run), "--tokens", "3k"]) == 0
        assert server.asked == []
        options = ["--endpoint", server.url, "--model-name", "stand-in", "--tokens", "6k", "--json"]
        assert main(["explain", str(run), *options]) == 2
        assert "name them, --features 7,12" in capsys.readouterr().err
        assert server.asked == []
        live = [*store.explanations(RunFolder(run))][:3]
        named = ",".join(map(str, live))
        assert main(["explain", str(run), *options, "--features", named]) == 0
        printed, told = capsys.readouterr()
        assert f"asking {server.url}, model stand-in, about 3 live features" in told
        result = json.loads(printed)
        schemas.check(result, "explain")
        kept = store.explanations(RunFolder(run), "stand-in")
        assert [row["feature"] for row in result["features"]] == [*kept] == live
        assert {one.method for one in store.of_feature(RunFolder(run), live[0])} == {
            "rules",
            "stand-in",
        }
        server.statuses = [401]
        assert main(["explain", str(run), *options, "--features", named]) == 1
        assert "it wants another key" in capsys.readouterr().err
