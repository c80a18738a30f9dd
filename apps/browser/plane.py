"""The map of an SAE's features as a plotly figure. Imports no Streamlit."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go

from .charts import ACCENT, QUIET, styled

SMALL = 5000  # features that are drawn without WebGL, which not every browser has


def figure(places_F2: np.ndarray, kept: np.ndarray, box: Sequence[float] | None) -> go.Figure:
    """Features as points of a plane, those of a list coloured; the box that filters as a frame."""
    drawn = styled(go.Figure(), 460)
    among_F = np.zeros(len(places_F2), bool)
    among_F[kept] = True
    for members, colour, size in ((~among_F, QUIET, 3), (among_F, ACCENT, 5)):
        at = np.flatnonzero(members & np.isfinite(places_F2).all(1))
        x_N, y_N = places_F2[at].astype(np.float32).T
        marker = {"color": colour, "size": size, "opacity": 0.7}
        hover = "feature %{customdata}<extra></extra>"
        kind = go.Scatter if len(places_F2) <= SMALL else go.Scattergl
        points = {"x": x_N, "y": y_N, "customdata": at, "mode": "markers"}
        drawn.add_trace(kind(**points, marker=marker, hovertemplate=hover))
    if box is not None:
        left, right, bottom, top = box
        line = {"color": QUIET, "width": 1}
        drawn.add_shape(type="rect", x0=left, x1=right, y0=bottom, y1=top, line=line)
    drawn.update_layout(dragmode="select")
    drawn.update_xaxes(visible=False)
    return drawn.update_yaxes(visible=False)
