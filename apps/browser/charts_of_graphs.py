"""An attribution graph as a plotly figure, for where no canvas is. Imports no Streamlit."""

from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import plotly.graph_objects as go

from .charts import ACCENT, NEGATIVE, POSITIVE, QUIET, styled
from .html import escape

COLOURS = {"feature": ACCENT, "error": QUIET, "token": POSITIVE, "logit": POSITIVE}
SYMBOLS = {"feature": "circle", "error": "diamond", "token": "square", "logit": "square"}
ROW, ABREAST = 90, 12  # pixels of a row; nodes side by side at one place


def drawn(payload: Mapping[str, Any], n_links: int) -> go.Figure:
    """payload: as `graph.payload` makes it. The n_links of most weight are drawn, those that take
    away in another colour; a node's size is its own share of the influence."""
    nodes, rows = payload["nodes"], payload["rows"]
    x, y = _places(nodes)
    figure = go.Figure()
    links = sorted(payload["links"], key=lambda link: -abs(link[2]))[:n_links]
    for positive, colour in ((True, QUIET), (False, NEGATIVE)):
        mine = [link for link in links if (link[2] > 0) == positive]
        ends = [(x[a], x[b], y[a], y[b]) for a, b, _ in mine]
        figure.add_scatter(
            x=[at for one in ends for at in (*one[:2], None)],
            y=[at for one in ends for at in (*one[2:], None)],
            mode="lines",
            line={"color": colour, "width": 0.6},
            opacity=0.5,
            hoverinfo="skip",
        )
    figure.add_scatter(
        x=x,
        y=y,
        mode="markers",
        marker={
            "color": [COLOURS[node["kind"]] for node in nodes],
            "symbol": [SYMBOLS[node["kind"]] for node in nodes],
            "size": [6 + 60 * (node["own"] or 0) ** 0.5 for node in nodes],
        },
        text=[escape(f"{node['id']} {node['text']} {node['value'] or ''}") for node in nodes],
        hoverinfo="text",
    )
    labels = [escape(token) for token in payload["columns"]]
    figure.update_xaxes(tickvals=list(range(len(labels))), ticktext=labels, tickangle=-60)
    figure.update_yaxes(tickvals=list(range(len(rows))), ticktext=[escape(row) for row in rows])
    return styled(figure, 80 + ROW * len(rows))


def _places(nodes: list[dict[str, Any]]) -> tuple[list[float], list[float]]:
    """Where nodes stand: those of one row and position beside each other, then above."""
    seen: dict[tuple[int, int], int] = defaultdict(int)
    x, y = [], []
    for node in nodes:
        place = node["row"], node["at"]
        step, level = seen[place] % ABREAST, seen[place] // ABREAST
        seen[place] += 1
        x.append(node["at"] + 0.8 * (step / ABREAST - 0.5) * (seen[place] > 1))
        y.append(node["row"] + 0.15 * level)
    return x, y
