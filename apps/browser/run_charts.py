"""Plotly figures of several runs. Imports no Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from . import charts
from .html import escape

# Marks of at least 3:1 on the light and on the dark page, in the order in which runs take them.
COLORS = ("#3f8f88", "#d97410", "#5485e6", "#c2559d", "#7d8a2e", "#b1623f", "#8a6fd1", "#4f8aa8")

SIDES = ("top right", "bottom right", "top left", "bottom left")  # of a dot, for its name


def colors(names: Sequence[str]) -> dict[str, str]:
    """A colour for every run, the same in every figure of a page."""
    return {name: COLORS[place % len(COLORS)] for place, name in enumerate(names)}


def pareto(
    points: Mapping[str, tuple[Mapping, Mapping]], label: str, better: str, color: Mapping[str, str]
) -> go.Figure:
    """L0 against a metric, the runs that no other beats in both joined by a line."""
    figure = charts.pareto(points, label)
    values = {name: (l0["value"], gives["value"]) for name, (l0, gives) in points.items()}
    sides = _sides([l0 for l0, _ in values.values()])
    marker = {"color": [color[name] for name in points], "size": 9}
    figure.update_traces(marker=marker, textposition=sides)
    front = sorted(undominated(values, better).values())
    line = go.Scatter(
        x=[l0 for l0, _ in front],
        y=[value for _, value in front],
        mode="lines",
        line={"color": charts.QUIET, "width": 1, "dash": "dot"},
        hoverinfo="skip",
    )
    figure.add_trace(line)
    l0 = [x for x, _ in values.values()]
    if min(l0) > 0 and max(l0) > 3 * min(l0):
        figure.update_xaxes(type="log", **charts.log_ticks(min(l0), max(l0)))
    return figure


def _sides(l0: Sequence[float]) -> list[str]:
    """Where each dot's name stands: of the first and the last towards the middle, where there is
    room."""
    low, high = min(l0), max(l0)
    sides = [SIDES[place % len(SIDES)] for place in range(len(l0))]
    if low == high:
        return sides
    inward = {low: "right", high: "left"}
    return [
        f"{side.split()[0]} {inward.get(x, side.split()[1])}"
        for x, side in zip(l0, sides, strict=True)
    ]


def undominated(
    values: Mapping[str, tuple[float, float]], better: str
) -> dict[str, tuple[float, float]]:
    """The runs (L0, value) that no other beats in both; ties stay."""
    sign = 1 if better == "lower" else -1
    kept = {}
    for name, (l0, value) in values.items():
        beaten = any(
            x <= l0 and sign * y <= sign * value and (x, y) != (l0, value)
            for x, y in values.values()
        )
        if not beaten:
            kept[name] = (l0, value)
    return kept


def curves(rows: Mapping[str, Sequence[Mapping]], color: Mapping[str, str]) -> go.Figure | None:
    """Training curves of several runs on one axis each, over tokens; None if nothing was
    recorded."""
    panels = [
        (key, name, log)
        for key, name, log in charts.CURVES
        if any(row.get(key) is not None for each in rows.values() for row in each)
    ]
    if not panels:
        return None
    titles = [name for _, name, _ in panels]
    figure = make_subplots(1, len(panels), subplot_titles=titles, horizontal_spacing=0.06)
    for column, (key, _, log) in enumerate(panels, start=1):
        values = []
        for name, each in rows.items():
            points = [row for row in each if row.get(key) is not None]
            values += [float(row[key]) for row in points]
            line = go.Scatter(
                x=[row["tokens"] for row in points],
                y=[row[key] for row in points],
                name=str(escape(name)),
                legendgroup=name,
                showlegend=column == 1,
                mode="lines",
                line={"color": color[name], "width": 1.5},
            )
            figure.add_trace(line, 1, column)
        axis: dict[str, Any] = {"nticks": 5}
        if log and min(values) > 0:
            axis = {"type": "log", **charts.log_ticks(min(values), max(values))}
        figure.update_yaxes(**axis, row=1, col=column)
        figure.update_xaxes(nticks=4, rangemode="tozero", row=1, col=column)
    figure = charts.styled(figure, 270)
    figure.update_annotations(font={"size": 12})
    legend = {"orientation": "h", "y": -0.15}
    return figure.update_layout(margin={"t": 28}, showlegend=True, legend=legend)
