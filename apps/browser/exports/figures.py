"""Figures as files: HTML needs nothing, PNG and SVG a kaleido and a Chromium."""

from pathlib import Path

import plotly.graph_objects as go

from saelab.errors import FailedRun, UsageError

SUFFIXES = (".html", ".svg", ".png")
NEEDS = (
    "PNG and SVG files need kaleido and a Chrome or Chromium: `pip install kaleido`, and "
    "BROWSER_PATH=/usr/bin/chromium where it does not find the browser by itself; HTML needs "
    "neither, and the camera above a figure in it saves an SVG"
)


def save(figure: go.Figure, path: Path) -> None:
    """Write a figure in the form that the path's suffix says; HTML is one self-contained file.

    Raises UsageError for another suffix, or where PNG and SVG cannot be made here.

        save(charts.histogram(feature.histogram), Path("histogram.html"))
    """
    if path.suffix not in SUFFIXES:
        raise UsageError(f"{path.name}: figures are written as {', '.join(SUFFIXES)}")
    if path.suffix == ".html":
        path.write_text(to_html(figure), encoding="utf-8")
        return
    try:
        figure.write_image(path, scale=2)
    except (ImportError, ValueError, RuntimeError) as error:
        if "kaleido" in str(error).lower() or "chrome" in str(error).lower():
            raise UsageError(f"{path.name} cannot be made here: {NEEDS}") from None
        raise FailedRun(f"{path.name} could not be drawn: {error}") from None


def to_html(figure: go.Figure) -> str:
    """A page by itself that shows a figure, with plotly's script in it."""
    return figure.to_html(include_plotlyjs=True, config=CONFIG)


# The bar above a figure: zoom, and a camera that saves what is seen as SVG, offline.
CONFIG = {
    "displaylogo": False,
    "displayModeBar": True,
    "modeBarButtonsToRemove": ["lasso2d", "select2d"],
    "toImageButtonOptions": {"format": "svg", "scale": 1},
}
