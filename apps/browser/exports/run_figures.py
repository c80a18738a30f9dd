"""The figures of a run's page."""

from collections.abc import Callable
from functools import partial

import plotly.graph_objects as go

from saelab.files import read_rows

from .. import charts
from .subject import Subject


def of(subject: Subject) -> dict[str, Callable[[], go.Figure | None]]:
    """What draws training curves, densities, and cosines with other SAEs, by name; None is drawn
    where nothing was recorded."""
    metrics, index = subject.folder.metrics, subject.reader
    figures: dict[str, Callable[[], go.Figure | None]] = {}
    if metrics.is_file():
        figures["training"] = lambda: charts.curves(read_rows(metrics))
    density_F = index.densities()
    if (density_F > 0).any():
        figures["densities"] = partial(charts.densities, density_F)
    for number, other in enumerate(index.summary["others"]):
        cosine_A = index.cosines(number)[density_F > 0]
        name = f"nearest-in-{other['name']}".replace(" ", "-").replace("/", "-")
        figures[name] = partial(charts.cosines, cosine_A, other["null"], other["threshold"])
    return figures
