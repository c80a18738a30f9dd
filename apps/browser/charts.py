"""Plotly figures of an index and of a run. Imports no Streamlit."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .html import escape

# Marks of at least 3:1 on the light and on the dark page; texts and axes take the page's colours.
POSITIVE, NEGATIVE, ACCENT = "#d97410", "#5485e6", "#3f8f88"
QUIET, CLEAR = "#7f8a96", "rgba(0, 0, 0, 0)"
BARE = {"displayModeBar": False}  # how Streamlit shows them
BANDS = {ACCENT: "rgba(63, 143, 136, 0.2)", NEGATIVE: "rgba(84, 133, 230, 0.2)"}


def styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        bargap=0.06,
        font={"size": 12},
        template="none",
        plot_bgcolor=CLEAR,
        paper_bgcolor=CLEAR,
    )
    # Room for ticks and titles, which the app's theme makes and other places do not.
    figure.update_xaxes(zeroline=False, fixedrange=True, automargin=True)
    figure.update_yaxes(zeroline=False, fixedrange=True, automargin=True)
    return figure


def log_ticks(low: float, high: float) -> dict[str, Any]:
    """Ticks of a logarithmic axis from low to high: the powers of ten where it spans two of them,
    else 1, 2 and 5 times these; each reads as the whole number it is.

    log_ticks(0.1, 0.7)["ticktext"]  # ['0.1', '0.2', '0.5']
    """
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1,) if math.log10(high / low) >= 2 else (1, 2, 5)
    every = [by * 10.0**decade for decade in range(first, last + 1) for by in steps]
    slack = 10 ** (0.05 * math.log10(high / low)) if high > low else 1.0
    values = [at for at in every if low / slack <= at <= high * slack]
    if len(values) < 2:
        values = sorted({float(f"{at:.2g}") for at in (low, high)})
    return {"tickvals": values, "ticktext": [f"{at:,.10g}" for at in values]}


CURVES = (
    ("fvu", "FVU", True),
    ("loss", "loss", True),
    ("l0", "L0", False),
    ("dead", "dead", False),
)


def curves(rows: Sequence[dict]) -> go.Figure | None:
    """Training curves over tokens, those of CURVES that were recorded; None if none was."""
    panels = [
        (key, name, log)
        for key, name, log in CURVES
        if any(row.get(key) is not None for row in rows)
    ]
    if not panels:
        return None
    figure = make_subplots(
        1, len(panels), subplot_titles=[name for _, name, _ in panels], horizontal_spacing=0.06
    )
    for column, (key, _, log) in enumerate(panels, start=1):
        points = [
            (float(row["tokens"]), float(row[key])) for row in rows if row.get(key) is not None
        ]
        x, y = zip(*points, strict=True)
        figure.add_trace(
            go.Scatter(x=x, y=y, mode="lines", line={"color": ACCENT, "width": 1.5}), 1, column
        )
        axis: dict[str, Any] = {"nticks": 5}
        if log and min(y) > 0:
            axis = {"type": "log", **log_ticks(min(y), max(y))}
        figure.update_yaxes(**axis, row=1, col=column)
        # From 0 on, as a short run has one round number of tokens alone.
        figure.update_xaxes(nticks=4, rangemode="tozero", row=1, col=column)
    styled(figure, 230)
    figure.update_annotations(font={"size": 12})
    return figure.update_layout(margin={"t": 28})


def densities(density_F: np.ndarray) -> go.Figure:
    """How many live features have which density, on a logarithmic axis."""
    live = density_F[density_F > 0]
    lowest, highest = np.floor(np.log10(live.min())), np.ceil(np.log10(live.max()) + 1e-9)
    edges = np.linspace(lowest, max(highest, lowest + 1), 61)
    counts, _ = np.histogram(np.log10(live), edges)
    middle = (edges[:-1] + edges[1:]) / 2
    hover = [
        f"{100 * 10**a:.2g}% to {100 * 10**b:.2g}%: {n:,}"
        for a, b, n in zip(edges[:-1], edges[1:], counts, strict=True)
    ]
    bars = go.Bar(
        x=middle,
        y=counts,
        width=np.diff(edges),
        marker_color=ACCENT,
        hovertext=hover,
        hoverinfo="text",
    )
    figure = styled(go.Figure(bars), 230)
    decades = np.arange(lowest, edges[-1] + 1)
    ticks = {"tickvals": decades, "ticktext": [f"{100 * 10**decade:g}%" for decade in decades]}
    return figure.update_xaxes(
        title="share of tokens the feature fires on", showgrid=False, **ticks
    ).update_yaxes(title="features")


def cosines(cosine_F: np.ndarray, null: float, threshold: float) -> go.Figure:
    """How close the nearest feature of the other SAE is, with the random expectation and the
    threshold as lines."""
    counts, edges = np.histogram(np.abs(cosine_F), np.linspace(0, 1, 51))
    middle = (edges[:-1] + edges[1:]) / 2
    figure = styled(
        go.Figure(go.Bar(x=middle, y=counts, marker_color=ACCENT, hoverinfo="x+y")), 230
    )
    for at, name in ((null, "random"), (threshold, f"found, {threshold:g}")):
        figure.add_vline(
            at,
            line={"color": QUIET, "width": 1, "dash": "dot"},
            annotation={"text": name, "font": {"size": 11}},
        )
    # The lines' names stand above the bars.
    room = [0, 1.2 * max(int(counts.max()), 1)]
    return figure.update_xaxes(
        title="cosine with the nearest", showgrid=False, range=[0, 1]
    ).update_yaxes(title="features", range=room)


def heads(rows: Sequence[dict]) -> go.Figure:
    """Scores of heads ({layer, head, score}) as a table of layers (top: the last) by heads, white
    at 0, blank where there is none."""
    layers, columns = (1 + max(row[key] for row in rows) for key in ("layer", "head"))
    scores_LH = np.zeros((layers, columns))
    for row in rows:
        score = row["score"]
        scores_LH[row["layer"], row["head"]] = np.nan if score is None else score
    largest = float(np.nanmax(np.abs(scores_LH))) or 1.0
    colors = [[0, NEGATIVE], [0.5, CLEAR], [1, POSITIVE]]
    hover = "layer %{y}, head %{x}: %{z:.3g}<extra></extra>"
    table = go.Heatmap(
        z=scores_LH,
        zmin=-largest,
        zmax=largest,
        colorscale=colors,
        hovertemplate=hover,
        xgap=1,
        ygap=1,
    )
    figure = styled(go.Figure(table), 80 + 28 * layers)
    return figure.update_xaxes(title="head", dtick=1, showgrid=False).update_yaxes(
        title="layer", dtick=1, showgrid=False
    )


def faithfulness(
    points: Sequence[dict], unit: str = "heads", left: Sequence[dict] = ()
) -> go.Figure:
    """Faithfulness ({size, value, low, high}) by circuit size, its 95% interval shaded, 1 as a
    line; left: what is left without.

    Heads on a linear axis; nodes, of which there are thousands, on a logarithmic one, without the
    empty circuit.
    """
    figure, few = styled(go.Figure(), 230), unit == "heads"
    for name, color, curve in (("kept", ACCENT, points), ("removed", NEGATIVE, left)):
        curve = [point for point in curve if few or point["size"]]
        size = [int(point["size"]) for point in curve]
        band = [point["high"] for point in curve] + [point["low"] for point in curve][::-1]
        hover = f"%{{x}} {unit} {name}: %{{y:.3g}}<extra></extra>"
        shade = go.Scatter(
            x=size + size[::-1],
            y=band,
            mode="lines",
            fill="toself",
            line={"width": 0},
            hoverinfo="skip",
        )
        line = go.Scatter(
            x=size, y=[point["value"] for point in curve], mode="lines+markers", hovertemplate=hover
        )
        if curve:
            shade.update(fillcolor=BANDS[color])
            line.update(line={"color": color, "width": 1.5})
            figure.add_traces([shade, line])
    figure.add_hline(1, line={"color": QUIET, "width": 1, "dash": "dot"})
    axis: dict[str, Any] = {"type": "linear"} if few else _log_axis([*points, *left])
    figure.update_xaxes(title=f"{unit} {'kept or removed' if left else 'kept'}", **axis)
    return figure.update_yaxes(title="faithfulness")


def _log_axis(points: Sequence[dict]) -> dict[str, Any]:
    """A logarithmic axis of circuit sizes."""
    sizes = [int(point["size"]) for point in points if point["size"]]
    return {"type": "log", **log_ticks(min(sizes), max(sizes))} if sizes else {"type": "log"}


def pareto(runs: Mapping[str, tuple[Mapping, Mapping]], label: str) -> go.Figure:
    """What each run costs, its L0, and what it gives, both estimates ({value, low, high}) by name,
    with 95% intervals of the latter; label: what that is."""
    pairs = list(runs.values())
    x, y = ([pair[side]["value"] for pair in pairs] for side in (0, 1))
    spread = {
        "type": "data",
        "symmetric": False,
        "array": [_reach(gives, "high") for _, gives in pairs],
        "arrayminus": [_reach(gives, "low") for _, gives in pairs],
        "color": QUIET,
        "thickness": 1,
        "width": 3,
    }
    dots = go.Scatter(
        x=x,
        y=y,
        error_y=spread,
        mode="markers+text",
        text=[str(escape(name)) for name in runs],  # of which plotly reads a little HTML
        textposition="middle right",
        marker={"color": ACCENT, "size": 8},
        hovertemplate=f"%{{text}}<br>L0 %{{x:.3g}}, {label} %{{y:.4g}}<extra></extra>",
    )
    figure = styled(go.Figure(dots), 320)
    return figure.update_xaxes(title="L0").update_yaxes(title=label)


def _reach(estimate: Mapping, end: str) -> float:
    """How far an interval reaches from its estimate."""
    return 0.0 if estimate[end] is None else abs(estimate[end] - estimate["value"])
