"""The figure of a reproduction's claims. Imports no Streamlit."""

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from .. import charts
from ..html import escape

# How a claim fared: its words, colour and mark, which tell it without the colour too.
FARED = {
    True: ("holds", charts.ACCENT, "circle"),
    False: ("does not hold", charts.POSITIVE, "x"),
    None: ("undecided", charts.QUIET, "circle-open"),
}
LINE = 26  # pixels
WORDS = 64  # characters of a claim in a line
FAR = 5.0  # times the median size: on an axis of their own, or the others would be a point


def figure(result: Mapping[str, Any]) -> go.Figure:
    """Every claim of a `reproduce` document: our number with its interval, marked by whether it
    holds.

    figures.save(figure(document), Path("circuits.html"))
    """
    claims = [claim for claim in result["claims"] if claim["value"] is not None]
    panels = [panel for panel in _by_size(claims) if panel]
    lines = [sum(_said(claim).count("<br>") + 1 for claim in panel) + 2 for panel in panels]
    drawn = make_subplots(len(panels), 1, row_heights=lines, vertical_spacing=2 / sum(lines))
    for row, panel in enumerate(panels, start=1):
        for holds, (words, color, symbol) in FARED.items():
            mine = [claim for claim in panel if claim["holds"] is holds]
            marker = {"color": color, "symbol": symbol, "size": 9}
            drawn.add_trace(_marks(mine, words, marker, shown=row == 1), row, 1)
        # plotly takes numbers there, and its types say names
        place: Any = {"row": row, "col": 1}
        drawn.add_vline(0, line={"color": charts.QUIET, "width": 1}, **place)
        order = [_said(claim) for claim in reversed(panel)]
        drawn.update_yaxes(categoryorder="array", categoryarray=order, row=row)
    charts.styled(drawn, 60 + LINE * sum(lines))
    legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom"}
    return drawn.update_layout(showlegend=True, legend=legend, margin={"t": 40})


def _by_size(claims: Sequence[Mapping]) -> tuple[list[Mapping], list[Mapping]]:
    """The claims of usual size, and those far larger."""
    sizes = sorted(abs(claim["value"]) for claim in claims)
    most = FAR * max(1.0, sizes[(len(sizes) - 1) // 2]) if sizes else 0.0
    usual = [claim for claim in claims if abs(claim["value"]) <= most]
    return usual, [claim for claim in claims if abs(claim["value"]) > most]


def _said(claim: Mapping[str, Any]) -> str:
    return "<br>".join(str(escape(line)) for line in textwrap.wrap(claim["claim"], WORDS))


def _marks(claims: Sequence[Mapping], words: str, marker: dict, *, shown: bool) -> go.Scatter:
    """The claims that fared so."""
    ends = [
        (0.0, 0.0) if claim["low"] is None else (claim["value"] - claim["low"],
                                                 claim["high"] - claim["value"])
        for claim in claims
    ]  # fmt: skip
    bars = {"array": [up for _, up in ends], "arrayminus": [down for down, _ in ends]}
    return go.Scatter(
        x=[claim["value"] for claim in claims],
        y=[_said(claim) for claim in claims],
        error_x={**bars, "thickness": 1.4, "width": 4, "color": marker["color"]},
        mode="markers",
        marker=marker,
        name=words,
        legendgroup=words,
        showlegend=shown,
        hovertext=[str(escape(f"theirs: {claim['theirs']}")) for claim in claims],
    )
