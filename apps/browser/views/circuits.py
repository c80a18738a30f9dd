"""A circuit: which heads or features carry a task, how well that agrees with the truth, how
faithful the best are alone."""

from pathlib import Path

import streamlit as st

from saelab.runs import RunFolder, read

from .. import charts, circuit, draw, load, state
from ..html import html

QUIET = {"displayModeBar": False}
ROWS = 20  # edges in the table
NONE_YET = html(
    "No circuits here yet: <code>saelab circuits --task ioi --out runs/ioi</code> makes one."
)


def show() -> None:
    """The page."""
    document = read(RunFolder(_folder()).circuit)
    state.show(circuit.about(document) + circuit.prompts(document))
    state.titled(f"Circuit {document['task']}")
    left, right = st.columns(2, gap="medium")
    with left:
        _curves(document)
    with right:
        _parts(document)


def _folder() -> Path:
    """The folder of the circuit that the address names."""
    folders = load.circuits()
    if not folders:
        state.stop(NONE_YET)
    name = st.query_params.get("circuit", next(iter(folders)))
    if name not in folders:
        known = ", ".join(folders)
        state.stop(html("There is no circuit <code>{}</code>; there are {}.", name, known))
    if len(folders) > 1:
        state.show(circuit.menu(list(folders), name))
    return folders[name]


def _curves(document: dict) -> None:
    by_feature = circuit.by_feature(document)
    if document["heads"]:
        meaning = "scores; orange helps the task"
        if by_feature:
            meaning = "summed |effect| of the features through each"
        state.show(draw.title("Heads", meaning))
        st.plotly_chart(charts.heads(document["heads"]), config=QUIET, key="heads")
    kept = "best heads kept, rest resampled"
    if by_feature:
        kept = "best nodes kept (green), removed (blue); 0: all at their mean"
    state.show(draw.title("Faithfulness", f"{kept}; 95% over prompts"))
    unit = "nodes" if by_feature else "heads"
    completeness = document.get("completeness", ())
    curve = charts.faithfulness(document["faithfulness"], unit, completeness)
    st.plotly_chart(curve, config=QUIET, key="faithfulness")
    if by_feature:
        _edges(document)


def _parts(document: dict) -> None:
    if not circuit.by_feature(document):
        _edges(document)
        return
    names = {str(folder): name for name, folder in load.runs().items()}
    state.show(circuit.nodes(document, names, 2 * ROWS))


def _edges(document: dict) -> None:
    state.show(circuit.agreement(document) + circuit.edges(document["edges"][:ROWS]))
