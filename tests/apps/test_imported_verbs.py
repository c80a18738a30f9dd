"""Every verb takes an SAE that others published, as a run and as the folder that they wrote."""

import json
import shutil
from itertools import product
from pathlib import Path

import pytest
import torch

from apps.cli import main
from saelab import SAE, Choice, formats
from saelab.evaluation import plausibility
from saelab.origin import Identity, Origin
from tests.apps.test_circuits import QUICK
from tests.conftest import HOOK
from tests.schemas import check


@pytest.fixture(scope="module")
def theirs(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The SAE of the tiny run as a folder of SAELens, which knows nothing of our caches."""
    folder = tmp_path_factory.mktemp("published") / "saelens"
    formats.save(SAE.load(tiny_run), folder, "saelens")
    return folder


@pytest.fixture(scope="module")
def run(theirs: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same, imported."""
    out = tmp_path_factory.mktemp("imported") / "run"
    line = ["import", str(theirs), "--out", str(out), "--model", str(tiny_model), "--hook", HOOK]
    assert main(line) == 0
    return out


def test_eval_measures_what_it_measures_of_the_run_it_came_from(
    run: Path, theirs: Path, tiny_run: Path, tiny_model: Path, tiny_cache: Path, tmp_path, capsys
):
    ours = shutil.copytree(tiny_run, tmp_path / "run")
    reports = {}
    where = ["--cache", str(tiny_cache), "--model", str(tiny_model), "--json"]
    for place in (run, theirs, ours):
        capsys.readouterr()
        assert main(["eval", str(place), *where]) == 0
        reports[place] = json.loads(capsys.readouterr().out)
    check(reports[run], "report")
    assert "check" not in reports[ours]  # which is known to be right
    assert reports[run]["check"] == reports[theirs]["check"]
    line = ["import", str(theirs), "--out", str(theirs.with_name("again")), "--hook", HOOK]
    assert main([*line, "--check", str(tiny_cache), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["check"] == reports[run]["check"]
    assert main(["eval", str(run), *where[:-1]]) == 0
    said = plausibility.sentence(reports[run]["check"])
    assert f"as an imported SAE: {said}" in capsys.readouterr().out
    assert main(["eval", str(run), str(ours), *where]) == 0
    check(json.loads(capsys.readouterr().out), "reports")
    for name in ("fvu", "l0", "ce_recovered"):
        assert reports[run][name] == reports[theirs][name] == reports[ours][name]


def test_without_a_cache_it_says_what_to_do(run: Path, capsys):
    assert main(["eval", str(run)]) == 2
    assert f"has no cache: `saelab capture --for {run}` makes one" in capsys.readouterr().err


def test_index_and_dark_matter(run: Path, tiny_cache: Path):
    where = [str(run), "--cache", str(tiny_cache)]
    assert main(["index", *where, "--tokens", "2000"]) == 0
    assert main(["dark-matter", *where, "--tokens", "2000", "--ridge", "0.1"]) == 0
    assert {"features.db", "dark-matter.json"} <= {path.name for path in run.iterdir()}
    assert main(["info", str(run), "--verify"]) == 0


def test_supervise(run: Path, tmp_path: Path):
    rows = [
        {"prompt": f"{n}{a}{b}", "answers": [a], "attributes": {"x": a, "y": b}}
        for n, a, b in product("123456", "abcd", "efg")
    ]
    (tmp_path / "letters.jsonl").write_text("\n".join(map(json.dumps, rows)) + "\n")
    assert main(["supervise", str(run), "--prompts", str(tmp_path / "letters.jsonl")]) == 0
    assert (run / "supervise-letters.json").is_file()


def test_circuits(bundled: str, tmp_path: Path):
    sae = SAE(256, 512, Choice(8))
    sae.W_dec.data.copy_(torch.nn.functional.normalize(sae.W_dec.data, dim=1))
    sae.origin = Origin(hook="blocks.2.hook_resid_post", model=Identity(bundled))
    formats.save(sae, tmp_path / "theirs", "sparsify")
    place = ["--hook", "blocks.2.hook_resid_post", "--model", bundled]
    assert main(["import", str(tmp_path / "theirs"), *place, "--out", str(tmp_path / "run")]) == 0
    line = ["circuits", "--task", "greater-than", "--method", "feature-circuit", "--model", bundled]
    out = ["--run", str(tmp_path / "run"), "--out", str(tmp_path / "circuit")]
    assert main([*line, *out, *QUICK]) == 0
    assert (tmp_path / "circuit" / "circuit.json").is_file()
