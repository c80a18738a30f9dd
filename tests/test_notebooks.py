"""The notebooks run from the first cell to the last, on the session's tiny run."""

import os
import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from apps.cli import main
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="module")
def indexed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the session's run with a feature index."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("notebooks") / "run"))
    assert main(["index", str(run), "--compare", str(tiny_run), "--tokens", "10k"]) == 0
    return run


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_first_cell_to_the_last(
    path: Path, indexed: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SAELAB_RUN", str(indexed))
    monkeypatch.setenv("PYTHONPATH", f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")
    notebook = nbformat.read(path, 4)
    NotebookClient(
        notebook,
        timeout=120,
        kernel_name="python3",
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    assert any(cell.get("outputs") for cell in notebook.cells)


def test_notebooks_are_committed_without_outputs():
    for path in NOTEBOOKS:
        assert not any(cell.get("outputs") for cell in nbformat.read(path, 4).cells), path
