"""The notebooks run from the first cell to the last, on the session's tiny run, and are committed
with the outputs of their cells as these are now."""

import copy
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from apps.cli import main
from notebooks.outputs import FIGURE, IMAGE, executed
from tests.conftest import ROOT

NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1_500_000  # bytes of a notebook: what GitHub still shows
PATH = re.compile(r"(?<![\w.:/<~])/(?:home|root|tmp|work|usr|opt|var|private|mnt|Users)/\w")


@pytest.fixture(scope="module")
def indexed(tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the session's run with a feature index."""
    run = Path(shutil.copytree(tiny_run, tmp_path_factory.mktemp("notebooks") / "run"))
    assert main(["index", str(run), "--compare", str(tiny_run), "--tokens", "10k"]) == 0
    shutil.copytree(tiny_run, run.parent / "other")
    return run


@pytest.fixture(scope="module")
def kernel() -> Iterator[AsyncKernelManager]:
    """One kernel for all notebooks, that imports what they import once."""
    manager = AsyncKernelManager(kernel_name="python3")
    yield manager
    # A browser of other tests may have left an event loop running in this thread.
    run_sync(manager.shutdown_kernel)(now=True)


def kinds(cell: Any) -> list[str]:
    """The kinds of a cell's outputs, one for each way in which they are given."""
    outputs = [one for one in cell.get("outputs", ()) if one.get("name") != "stderr"]
    listed = {kind for one in outputs for kind in one.get("data", {one.get("name", "error"): ""})}
    return sorted(listed - {IMAGE})


def faults(notebook: Any) -> list[str]:
    """What is wrong with a notebook as it is committed."""
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    wrong = [] if any(kinds(cell) for cell in cells) else ["no outputs"]
    if [cell.execution_count for cell in cells] != list(range(1, len(cells) + 1)):
        wrong.append("not run once, from the first cell to the last")
    if any("error" in kinds(cell) for cell in cells):
        wrong.append("an error")
    held = [
        one.data
        for cell in cells
        for one in cell.get("outputs", ())
        if FIGURE in one.get("data", ())
    ]
    if not all(IMAGE in each for each in held):
        wrong.append("a figure without an image")
    text = nbformat.writes(notebook)
    if place := PATH.search(text):
        wrong.append(f"a path of a machine: {text[place.start() : place.start() + 40]}")
    return wrong if len(text) <= LARGEST else [*wrong, f"{len(text):,} characters"]


def differing(committed: Any, now: Any) -> list[str]:
    """The cells whose outputs are of other kinds than they are committed with."""
    pairs = zip(committed.cells, now.cells, strict=True)
    return [one.id for one, other in pairs if kinds(one) != kinds(other)]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_the_first_cell_to_the_last(
    path: Path, indexed: Path, kernel: AsyncKernelManager
):
    search = f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    place = {"SAELAB_RUN": str(indexed), "SAELAB_OTHER": str(indexed.parent / "other")}
    place["SAELAB_TOKENS"] = "4k"
    # That notebook registers a metric of its own, which stays in its process.
    shared = None if path.stem == "04_explore" else kernel
    now = executed(path, {**place, "PYTHONPATH": search}, shared)
    assert differing(nbformat.read(path, 4), now) == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_are_committed_with_their_outputs(path: Path):
    assert faults(nbformat.read(path, 4)) == []


def test_outputs_that_are_missing_old_or_of_a_machine_are_caught():
    (path,) = (path for path in NOTEBOOKS if path.stem == "04_explore")
    right = nbformat.read(path, 4)
    cells = [number for number, cell in enumerate(right.cells) if cell.get("outputs")]
    bare, old, told, drawn = (copy.deepcopy(right) for _ in range(4))
    for number in cells:
        bare.cells[number].outputs = []
    assert "no outputs" in faults(bare)
    old.cells[cells[2]].outputs = []
    assert differing(old, right) == [right.cells[cells[2]].id]
    old.cells[cells[2]].execution_count = None
    assert "not run once, from the first cell to the last" in faults(old)
    told.cells[cells[0]].outputs.append(nbformat.v4.new_output("stream", text="in /home/me/runs"))
    assert any(fault.startswith("a path of a machine: /home/me") for fault in faults(told))
    for cell in drawn.cells:
        for one in cell.get("outputs", ()):
            one.get("data", {}).pop(IMAGE, None)
    assert faults(drawn) == ["a figure without an image"]


def test_every_step_of_the_first_hour_is_at_most_five_lines():
    (path,) = (path for path in NOTEBOOKS if path.stem == "04_explore")
    cells = [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]
    lengths = [len([line for line in cell.source.splitlines() if line.strip()]) for cell in cells]
    assert max(lengths) <= 5 and len(lengths) > 12
