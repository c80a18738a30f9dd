"""Results say of which SAE they are, and a run which of its results are of another."""

import json
import shutil
from pathlib import Path

import pytest

from apps.cli import main, train
from saelab import SAE
from saelab.errors import UsageError
from saelab.files import write_json
from saelab.outdated import outdated
from saelab.runs import RunFolder


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> RunFolder:
    """A run with an index and reports that were made of its SAE, and one of before they said so."""
    folder = Path(shutil.copytree(tiny_run, tmp_path / "run"))
    for verb in ("eval", "index"):
        assert main([verb, str(folder), "--tokens", "1k", "--json"]) == 0
    write_json(folder / "supervise-old.json", {"schema": "saelab/supervise/1"})
    return RunFolder(folder)


def test_results_of_another_sae_are_named(run: RunFolder, capsys: pytest.CaptureFixture):
    assert outdated(run) == []
    sae = SAE.load(run.path)
    sae.b_dec.data[0] += 1
    sae.save(run.sae)
    assert outdated(run) == ["features.db", "report.json"]
    capsys.readouterr()
    assert main(["info", str(run.path), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert facts["of another SAE"] == ["features.db", "report.json"]
    assert main(["info", str(run.path)]) == 0
    assert "of another SAE: features.db, report.json" in capsys.readouterr().out


def test_a_run_without_a_recorded_digest_accuses_nobody(run: RunFolder):
    header = json.loads(run.header.read_text())
    del header["weights"]
    write_json(run.header, header)
    assert outdated(run) == []


def test_a_damaged_result_does_not_spoil_a_training(run: RunFolder, capsys: pytest.CaptureFixture):
    run.features.write_bytes(b"no index")
    with pytest.raises(UsageError, match="not a feature index"):
        outdated(run)
    train._tell_outdated(run)
    assert "earlier SAE" not in capsys.readouterr().err
