"""What a head attends to, as a figure. Imports no Streamlit."""

from collections.abc import Sequence

import plotly.graph_objects as go

from .charts import ACCENT, CLEAR, styled
from .html import escape


def attention(texts: Sequence[str], shares: Sequence[Sequence[float]]) -> go.Figure:
    """A head's attention from each token (downward) to those before it (to the right)."""
    names = [escape(text.replace("\n", "↵")) for text in texts]
    hover = "from %{customdata[0]} to %{customdata[1]}: %{z:.1%}<extra></extra>"
    pairs = [[(one, other) for other in names] for one in names]
    seen = [
        [share if to <= at else None for to, share in enumerate(row)]
        for at, row in enumerate(shares)
    ]
    table = go.Heatmap(
        z=seen,
        zmin=0,
        zmax=1,
        colorscale=[[0, CLEAR], [1, ACCENT]],
        customdata=pairs,
        hovertemplate=hover,
        xgap=1,
        ygap=1,
        hoverongaps=False,
    )
    figure = styled(go.Figure(table), 120 + 20 * len(names))
    ticks = {"tickvals": list(range(len(names))), "ticktext": names, "showgrid": False}
    figure.update_xaxes(**ticks, tickangle=-60)
    return figure.update_yaxes(**ticks, autorange="reversed")
