"""Plotly figures of an index and of a run. Imports no Streamlit."""

from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from saelab.features.records import Bin, Logit

INK, QUIET, GRID = "#1f2933", "#6b7785", "#e8ebef"
POSITIVE, NEGATIVE, ACCENT = "#f28b20", "#4279d6", "#2f6f6a"
GLYPHS = {"\n": "↵", "\t": "⇥", "\r": "␍", " ": "·"}


def _styled(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        height=height,
        margin={"l": 8, "r": 8, "t": 8, "b": 8},
        showlegend=False,
        bargap=0.06,
        font={"size": 11, "color": QUIET},
        plot_bgcolor="white",
        paper_bgcolor="white",
    )
    figure.update_xaxes(gridcolor=GRID, zeroline=False, fixedrange=True)
    figure.update_yaxes(gridcolor=GRID, zeroline=False, fixedrange=True)
    return figure


def _label(text: str) -> str:
    """A token as plotly shows it: plotly reads a little HTML in labels, so its three characters are
    escaped."""
    drawable = "".join(GLYPHS.get(character, character) for character in text)
    return drawable.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def histogram(bins: Sequence[Bin]) -> go.Figure:
    """How often a feature fired, by activation; bars span their bin (an eighth of an octave)."""
    low, high = np.array([part.low for part in bins]), np.array([part.high for part in bins])
    colors = [POSITIVE if part.low >= 0 else NEGATIVE for part in bins]
    hover = [f"{part.low:.3g} to {part.high:.3g}: {part.fired:,}" for part in bins]
    heights = [part.fired for part in bins]
    bars = go.Bar(
        x=(low + high) / 2,
        width=high - low,
        y=heights,
        marker_color=colors,
        hovertext=hover,
        hoverinfo="text",
    )
    figure = _styled(go.Figure(bars), 190)
    figure.update_layout(bargap=0)
    figure.update_traces(marker_line={"width": 0.5, "color": "white"})
    return figure.update_xaxes(title="activation", showgrid=False).update_yaxes(title="tokens")


def logits(promoted: Sequence[Logit], suppressed: Sequence[Logit]) -> go.Figure:
    """The output tokens a feature raises most (right) and lowers most (left), strongest on top."""
    figure = make_subplots(1, 2, horizontal_spacing=0.05)
    largest = max(abs(one.value) for one in [*promoted, *suppressed]) * 1.05
    for column, (tokens, color) in enumerate(
        ((suppressed, NEGATIVE), (promoted, POSITIVE)), start=1
    ):
        rows = list(range(len(tokens)))
        hover = [f"{_label(one.text)} {one.value:+.3f}" for one in tokens]
        bars = go.Bar(
            x=[one.value for one in tokens],
            y=rows,
            orientation="h",
            marker_color=color,
            hovertext=hover,
            hoverinfo="text",
        )
        figure.add_trace(bars, 1, column)
        side = "right" if column == 2 else "left"
        ticks = {
            "tickvals": rows,
            "ticktext": [_label(one.text) for one in tokens],
            "side": side,
            "showgrid": False,
        }
        figure.update_yaxes(
            **ticks,
            autorange="reversed",
            tickfont={"family": "monospace", "color": INK},
            row=1,
            col=column,
        )
        figure.update_xaxes(
            range=[-largest, 0] if column == 1 else [0, largest], nticks=4, row=1, col=column
        )
    return _styled(figure, 30 + 21 * max(len(promoted), len(suppressed)))


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
        figure.update_yaxes(
            type="log" if log and min(y) > 0 else "linear", nticks=5, row=1, col=column
        )
        figure.update_xaxes(nticks=4, row=1, col=column)
    _styled(figure, 230)
    figure.update_annotations(font={"size": 12, "color": INK})
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
    figure = _styled(go.Figure(bars), 230)
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
    figure = _styled(
        go.Figure(go.Bar(x=middle, y=counts, marker_color=ACCENT, hoverinfo="x+y")), 230
    )
    for at, name in ((null, "random"), (threshold, "found")):
        figure.add_vline(
            at,
            line={"color": QUIET, "width": 1, "dash": "dot"},
            annotation={"text": name, "font": {"size": 11}},
        )
    return figure.update_xaxes(
        title="cosine with the nearest", showgrid=False, range=[0, 1]
    ).update_yaxes(title="features")


def heads(rows: Sequence[dict]) -> go.Figure:
    """Scores of heads ({layer, head, score}) as a table of layers (top: the last) by heads, white
    at 0."""
    layers, columns = (1 + max(row[key] for row in rows) for key in ("layer", "head"))
    scores_LH = np.zeros((layers, columns))
    for row in rows:
        scores_LH[row["layer"], row["head"]] = row["score"]
    largest = float(np.abs(scores_LH).max()) or 1.0
    colors = [[0, NEGATIVE], [0.5, "white"], [1, POSITIVE]]
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
    figure = _styled(go.Figure(table), 80 + 28 * layers)
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
    figure, few = _styled(go.Figure(), 230), unit == "heads"
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
            figure.add_traces(
                [shade.update(fillcolor=GRID), line.update(line={"color": color, "width": 1.5})]
            )
    figure.add_hline(1, line={"color": QUIET, "width": 1, "dash": "dot"})
    figure.update_xaxes(
        title=f"{unit} {'kept or removed' if left else 'kept'}", type="linear" if few else "log"
    )
    return figure.update_xaxes(dtick=None if few else 1).update_yaxes(title="faithfulness")
