"""Run the notebooks on the demo's run and keep their outputs, so that they show something where
nobody runs them.

    python notebooks/outputs.py runs/demo [NAME ...]

A figure is kept as plotly's data, which Jupyter draws, and as an image for those who do not; the
image is drawn by a Chromium (playwright's own, or $CHROMIUM).
"""

import base64
import os
import shutil
import sys
from pathlib import Path
from typing import Any

import nbformat
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

HERE = Path(__file__).resolve().parent
FIGURE, IMAGE = "application/vnd.plotly.v1+json", "image/png"
WIDTH, SCALE = 800, 1.5
DRAW = """([figure, width, scale]) => {
  const place = document.body.appendChild(document.createElement("div"));
  const height = figure.layout.height || 320;
  const layout = Object.assign({}, figure.layout, {width, height, paper_bgcolor: "white"});
  return Plotly.newPlot(place, figure.data, layout)
    .then(() => Plotly.toImage(place, {format: "png", width, height, scale}));
}"""


def executed(
    path: Path, environment: dict[str, str], kernel: AsyncKernelManager | None = None
) -> Any:
    """The notebook with its outputs. environment: what is set while it runs. kernel: one that runs
    it with no names of what it ran before, and stays; without one it gets its own."""
    notebook = nbformat.read(path, 4)
    for cell in notebook.cells:
        cell.metadata = {}
    notebook.cells.insert(0, nbformat.v4.new_code_cell("%reset -f"))
    client = NotebookClient(
        notebook,
        km=kernel,
        timeout=1200,
        kernel_name="python3",
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    try:
        client.execute(env={**os.environ, "PLOTLY_RENDERER": "plotly_mimetype", **environment})
    finally:
        if kernel is not None and client.kc is not None:
            client.kc.stop_channels()  # this notebook's; the kernel stays
    del notebook.cells[0]
    for count, cell in enumerate((each for each in notebook.cells if "outputs" in each), start=1):
        cell.execution_count = count
    notebook.metadata["language_info"] = {"name": "python"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs = [one for one in cell.outputs if one.get("name") != "stderr"]
            cell.metadata = {}
    return notebook


def images(figures: list[dict]) -> list[str]:
    """Each plotly figure as base64 of a PNG."""
    from playwright.sync_api import sync_playwright
    from plotly.offline import get_plotlyjs

    with sync_playwright() as playwright:
        binary = os.environ.get("CHROMIUM") or shutil.which("chromium")
        arguments = ["--no-sandbox", "--disable-background-networking"]
        browser = playwright.chromium.launch(executable_path=binary, args=arguments)
        page = browser.new_page()
        page.set_content("<body></body>")
        page.add_script_tag(content=get_plotlyjs())
        drawn = [page.evaluate(DRAW, [figure, WIDTH, SCALE]) for figure in figures]
        browser.close()
    return [one.partition(",")[2] for one in drawn]


def main() -> None:
    """Rewrite the notebooks that are named, or all."""
    run = Path(sys.argv[1])
    place = os.path.relpath(run, HERE)
    environment = {"SAELAB_RUN": place, "SAELAB_OTHER": f"{place}-seed1"}
    for path in sorted(HERE.glob("*.ipynb")):
        if sys.argv[2:] and path.stem not in sys.argv[2:]:
            continue
        notebook = executed(path, environment)
        outputs = [one for cell in notebook.cells for one in cell.get("outputs", ())]
        figures = [one.data for one in outputs if FIGURE in one.get("data", ())]
        for held, image in zip(figures, images([held[FIGURE] for held in figures]), strict=True):
            assert base64.b64decode(image).startswith(b"\x89PNG")
            held[IMAGE] = image
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size:,} bytes", flush=True)


if __name__ == "__main__":
    main()
