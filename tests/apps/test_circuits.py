"""`saelab circuits` on the bundled model: its document, its text, and what it refuses."""

import json
from pathlib import Path

import jsonschema
import pytest

from apps.cli import main
from saelab import SAE, Choice
from saelab.origin import Origin
from tests.analysis.circuits.test_hand_made import years
from tests.apps.pages import opened_page
from tests.schemas import check

QUICK = ["--n", "8", "--held-out", "24", "--repeats", "3"]


@pytest.fixture(scope="module")
def written(bundled: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small run on greater-than, whose circuit is two heads."""
    out = tmp_path_factory.mktemp("circuits")
    assert (
        main(["circuits", "--task", "greater-than", "--model", bundled, "--out", str(out), *QUICK])
        == 0
    )
    return out


@pytest.fixture(scope="module")
def by_feature(bundled: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a feature circuit through the head outputs of all layers, and of its
    (untrained) SAEs."""
    folder = tmp_path_factory.mktemp("features")
    runs = []
    for layer in range(4):
        sae = SAE(256, 128, Choice(8), seed=layer)
        sae.origin = Origin(f"blocks.{layer}.attn.hook_z")
        sae.save(folder / f"z{layer}" / "sae")
        runs += ["--run", str(folder / f"z{layer}")]
    command = [
        "circuits",
        "--task",
        "greater-than",
        "--method",
        "feature-circuit",
        "--model",
        bundled,
        "--out",
        str(folder / "gt"),
    ]
    assert main([*command, *runs, *QUICK]) == 0
    return folder


@pytest.fixture
def result(written: Path) -> dict:
    return json.loads((written / "circuit.json").read_text())


def test_the_document_follows_its_schema_and_finds_the_two_heads(result: dict):
    check(result, "circuits")
    assert {(row["layer"], row["head"]) for row in result["heads"][:2]} == {(3, 2), (3, 6)}
    assert result["auc"] > 0.95 and len(result["edges"]) == 1519
    assert result["faithfulness"][2]["low"] > 0.9 and result["faithfulness"][0]["value"] == 0
    assert [row["level"] for row in result["truth"]["levels"]] == [0.02, 0.05, 0.1]
    assert len(result["heads"]) == 32 and result["intervals"]["auc_random"][0] < 0.5
    assert all(prompt["clean"].startswith("The ") for prompt in result["prompts"]["examples"])


def test_a_feature_circuit_follows_the_schema_and_its_heads_are_compared_with_the_truth(
    by_feature: Path,
):
    result = json.loads((by_feature / "gt" / "circuit.json").read_text())
    check(result, "circuits")
    assert (
        result["schema"] == "saelab/feature-circuit/1"
        and len(result["hooks"]) == len(result["runs"]) == 4
    )
    assert len(result["heads"]) == 32 and result["auc"] > 0.9
    sizes = [point["size"] for point in result["faithfulness"]]
    assert sizes[0] == 0 and sizes[-1] == result["n_nodes"] == len(
        {row["name"] for row in result["nodes"]}
    )
    named = {row["name"] for row in result["nodes"][:60]} | {"metric"}
    sources, targets = ({edge[end] for edge in result["edges"]} for end in ("source", "target"))
    assert sources | targets <= named and "metric" in targets - sources
    last = f"{result['hooks'][-1]}/"
    assert all(
        edge["target"] == "metric" for edge in result["edges"] if edge["source"].startswith(last)
    ), "nothing acts backwards"
    error = next(row for row in result["nodes"] if row["feature"] is None)
    assert error["name"] == f"{error['hook']}/error"


def test_the_schema_tells_the_two_kinds_apart(result: dict):
    for broken in (
        result | {"schema": "saelab/feature-circuit/1"},
        result | {"nodes": []},
        result | {"typo": 1},
    ):
        with pytest.raises(jsonschema.ValidationError):
            check(broken, "circuits")


def test_features_of_residual_attention_and_mlp_are_traced_at_once_on_ones_own_prompts(
    bundled: str, by_feature: Path, tmp_path: Path, capsys
):
    names = ("clean", "corrupted", "answers", "wrong")
    rows = [dict(zip(names, pair, strict=False)) for pair in years()]
    (tmp_path / "later.json").write_text(json.dumps(rows))
    runs = ["--run", str(by_feature / "z3")]
    for hook in ("blocks.2.hook_resid_post", "blocks.3.hook_mlp_out"):
        sae = SAE(256, 128, Choice(8), seed=7)
        sae.origin = Origin(hook)
        sae.save(tmp_path / hook / "sae")
        runs += ["--run", str(tmp_path / hook)]
    out = ["--prompts", str(tmp_path / "later.json"), "--out", str(tmp_path / "out")]
    command = ["circuits", "--method", "feature-circuit", "--model", bundled, *out]
    assert main([*command, *runs, *QUICK]) == 0
    why = "heads have scores where every layer's head outputs (attn.hook_z) have an SAE"
    assert why in capsys.readouterr().out
    result = json.loads((tmp_path / "out" / "circuit.json").read_text())
    check(result, "circuits")
    assert result["task"] == "later" and result["heads"] == [] and result["auc"] is None
    assert len(result["hooks"]) == 3 == len({row["hook"] for row in result["nodes"]})
    assert result["prompts"]["left_out"] == {"unusable": 0, "other_lengths": 0, "repeated": 0}


def test_the_page_of_a_feature_circuit_links_to_its_features(by_feature: Path, monkeypatch):
    from apps.browser import PLACES

    monkeypatch.setenv(PLACES, json.dumps([str(by_feature)]))
    page = opened_page("circuits")
    assert len(page.get("plotly_chart")) == 2
    body = "".join(element.proto.body for element in page.get("html"))
    assert 'href="/feature?run=z3&amp;feature=' in body and "attn.o.hook_in/error" in body


def test_exact_patching_is_not_compared_with_itself(bundled: str, tmp_path: Path, capsys):
    command = [
        "circuits",
        "--task",
        "greater-than",
        "--model",
        bundled,
        "--method",
        "patching",
        "--out",
        str(tmp_path),
    ]
    assert main([*command, "--n", "2", "--held-out", "4", "--repeats", "1"]) == 0
    assert "exact patching is the truth itself" in capsys.readouterr().out
    result = json.loads((tmp_path / "circuit.json").read_text())
    assert result["auc"] is None and result["truth"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ["--task", "addition"],
            "unknown task 'addition': tasks are ioi, greater-than, docstring, induction, agreement",
        ),
        (
            ["--method", "eapig"],
            "unknown method 'eapig': methods are eap-ig, eap-ig-activations, eap, atp, codes",
        ),
        (["--truth", "guessed"], "unknown truth 'guessed': there are measured, none"),
        (["--repeats", "0"], "repeats=0: give a whole number of at least 1"),
        (["--n", "0"], "n=0: give a whole number of at least 1"),
        (["--held-out", "1"], "held_out=1: at least two are needed for an interval"),
        (
            ["--run", "x", "--method", "eap"],
            "--run is for codes and codes-raw, which read heads with an SAE, and for",
        ),
        (
            ["--run", "x", "--run", "y", "--method", "codes"],
            "codes reads heads with one SAE: name one --run, not 2",
        ),
        (
            ["--method", "feature-circuit"],
            "feature-circuit needs SAEs of this model: name each run with --run",
        ),
        (["--run", "x", "--method", "codes"], "x holds no SAE"),
        (
            ["--task", "agreement", "--held-out", "24"],
            "this model does not do the task agreement: its logit difference is",
        ),
        (
            ["--published", "ioi", *QUICK],
            "the published ioi circuit (Wang et al. 2022) is one of gpt2, and this model",
        ),
        (["--published", "sva"], "no published circuit 'sva': there are ioi, greater-than, doc"),
        (
            ["--published", "ioi", "--task", "docstring"],
            "published=ioi: that circuit is of its own task, not docstring",
        ),
        (["--task", "own.csv"], "--task is a built-in task's name: give a file as --prompts own"),
        (["--prompts", "own.csv"], "no file own.csv: --prompts takes a file of prompts"),
        (
            ["--task", "ioi", "--prompts", "own.csv"],
            "--task ioi and --prompts own.csv: give one, a built-in task or a file of prompts",
        ),
        (["--seconds", "5"], "seconds=5: eap-ig ends by itself; a budget is for acdc and patching"),
        (["--seconds", "-1", "--method", "acdc"], "seconds=-1.0: give a number above 0"),
        (["--edges"], "--edges is for patching: eap-ig scores what edges it has"),
        (
            ["--seconds", "1e-9", "--method", "acdc", *QUICK],
            "the time was over before acdc measured a head: give it more",
        ),
    ],
)
def test_what_cannot_be_done_is_refused_in_one_line(
    bundled: str, tmp_path: Path, capsys, options: list[str], message: str
):
    assert main(["circuits", "--model", bundled, "--out", str(tmp_path / "out"), *options]) == 2
    assert message in capsys.readouterr().err.strip().splitlines()[-1]
    assert not (tmp_path / "out").exists()


def test_the_page_shows_a_circuit_and_says_what_to_type_where_there_is_none(
    written: Path, tmp_path: Path, monkeypatch
):
    from apps.browser import PLACES
    from apps.cli import browse

    for place in (written, tmp_path):
        monkeypatch.setenv(PLACES, json.dumps([str(place)]))
        page = opened_page("circuits")
        body = "".join(element.proto.body for element in page.get("html"))
        assert ("a3.h6" in body and "greater-than" in body) == (place == written)
        assert ("saelab circuits --task" in body) == (place == tmp_path)
        assert len(page.get("plotly_chart")) == (1 if place == written else 0)
    assert browse.check_places((written,)) == {}


def test_figures_of_a_circuit_by_hand():
    from apps.browser import charts

    table = charts.heads(
        [{"layer": 1, "head": 2, "score": -4.0}, {"layer": 0, "head": 0, "score": 1.0}]
    ).data[0]
    assert table.z.tolist() == [[1, 0, 0], [0, 0, -4]] and (table.zmin, table.zmax) == (-4, 4)
    points = [
        {"size": 0, "value": 0, "low": 0, "high": 0},
        {"size": 2, "value": 1, "low": 0.5, "high": 2},
    ]
    band, line = charts.faithfulness(points).data
    assert (
        list(line.y) == [0, 1] and list(band.x) == [0, 2, 2, 0] and list(band.y) == [0, 2, 0.5, 0]
    )


def test_texts_of_a_circuit_are_escaped():
    from apps.browser import circuit

    assert "<b>" not in circuit.edges([{"source": "<b>", "target": "m0", "score": 1.0}])
    assert 'href="/circuits?circuit=a+b"' in circuit.menu(["a b", "c"], "c")
