"""The figures of a run's page."""

import plotly.graph_objects as go

from saelab.files import read_rows

from .. import charts
from .subject import Subject


def of(subject: Subject) -> dict[str, go.Figure]:
    """Training curves, densities, and cosines with other SAEs, by name."""
    metrics, index = subject.folder.metrics, subject.reader
    figures: dict[str, go.Figure | None] = {}
    figures["training"] = charts.curves(read_rows(metrics)) if metrics.is_file() else None
    density_F = index.densities()
    if (density_F > 0).any():
        figures["densities"] = charts.densities(density_F)
    for number, other in enumerate(index.summary["others"]):
        cosine_A = index.cosines(number)[density_F > 0]
        name = f"nearest-in-{other['name']}".replace(" ", "-").replace("/", "-")
        figures[name] = charts.cosines(cosine_A, other["null"], other["threshold"])
    return {name: figure for name, figure in figures.items() if figure is not None}
