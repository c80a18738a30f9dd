"""The figure of a reproduction's grid. Imports no Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import charts
from ..html import escape
from ..run_charts import COLORS

HEIGHT = 200  # pixels of a row of panels
# number: how it reads in a comparison, and the form of its ticks
NUMBERS = {
    "fvu": ("FVU, more or less than", ".0%"),
    "dead": ("dead share, less that of", ".2f"),
    "loss": ("loss added (nats), less that of", ".3f"),
    "ap": ("average precision, less that of", ".2f"),
    "steer": ("steered (nats), less that of", ".2f"),
    "f1": ("F1 per axis, less that of", ".2f"),
}


def figure(result: Mapping[str, Any]) -> go.Figure:
    """A panel for each comparison and width of a `reproduce_grid` document: what a number differs
    by over training tokens, means over seeds with their 95% intervals.

    figures.save(figure(document), Path("abstopk-grid.html"))
    """
    rows = [row for row in result["rows"] if row["over"]]
    lines = list(dict.fromkeys((row["where"], row["number"], row["over"]) for row in rows))
    widths = list(result["size"]["features"])
    methods = list(dict.fromkeys(row["method"] for row in rows))
    titles = [f"F = {width:,}" for width in widths] + [""] * (len(lines) - 1) * len(widths)
    panels = make_subplots(
        len(lines),
        len(widths),
        shared_xaxes=True,
        shared_yaxes=True,
        subplot_titles=titles,
        horizontal_spacing=0.02,
        vertical_spacing=0.15 / len(lines),
    )
    for down, line in enumerate(lines, start=1):
        for across, width in enumerate(widths, start=1):
            here = [row for row in rows if _line(row) == line and row["features"] == width]
            for row in here:
                first = down == across == 1
                color = COLORS[methods.index(row["method"]) % len(COLORS)]
                panels.add_trace(_trace(row, color, shown=first), down, across)
            # plotly takes numbers there, and its types say names
            place: Any = {"row": down, "col": across}
            panels.add_hline(0, line={"color": charts.QUIET, "width": 1}, **place)
        words, ticks = NUMBERS[line[1]]
        title = f"{words}<br>{escape(line[2])}<br>{escape(line[0])}"
        panels.update_yaxes(tickformat=ticks, row=down)
        panels.update_yaxes(title_text=title, row=down, col=1)
    charts.styled(panels, 80 + HEIGHT * len(lines))
    tokens = [f"{number / 1000:,.0f}k" for number in result["size"]["tokens"]]
    panels.update_xaxes(type="log", tickvals=result["size"]["tokens"], ticktext=tokens)
    panels.update_xaxes(title_text="training tokens", row=len(lines))
    legend = {"orientation": "h", "y": 1 + 30 / (HEIGHT * len(lines)), "yanchor": "bottom"}
    return panels.update_layout(
        showlegend=True, legend=legend, margin={"l": 8, "r": 8, "t": 80, "b": 8}
    )


def _line(row: Mapping[str, Any]) -> tuple[str, str, str]:
    return row["where"], row["number"], row["over"]


def _trace(row: Mapping[str, Any], color: str, shown: bool) -> go.Scatter:
    """A question's answers at one width."""
    points: Sequence[Mapping] = [one for one in row["points"] if one["value"] is not None]
    bars = [0 if one["high"] is None else one["high"] - one["value"] for one in points]
    return go.Scatter(
        x=[one["tokens"] for one in points],
        y=[one["value"] for one in points],
        error_y={"array": bars, "thickness": 1.2, "width": 3},
        name=str(escape(row["method"])),
        legendgroup=row["method"],
        showlegend=shown,
        mode="lines+markers",
        line={"color": color, "width": 1.5},
        hovertext=[f"{escape(row['claim'])}: {escape(row['answer'])}"] * len(points),
    )
