"""A circuit: which heads or features carry a task, how well that agrees with the truth, how
faithful the best are alone."""

from pathlib import Path

import streamlit as st

from saelab.runs import RunFolder, read

from .. import canvas, charts, circuit, circuit_graph, draw, load, state
from ..html import html
from . import attention

QUIET = {"displayModeBar": False}
ROWS = 20  # edges in the table
NONE_YET = html(
    "No circuits here yet: <code>saelab circuits --task ioi --out runs/ioi</code> makes one."
)


def show() -> None:
    """The page."""
    folder = _folder()
    document = read(RunFolder(folder).circuit)
    state.show(circuit.about(document) + circuit.prompts(document))
    state.titled(f"Circuit {document['task']}")
    _graph(document, folder)
    left, right = st.columns(2, gap="medium")
    with left:
        _curves(document)
    with right:
        _parts(document)


def _graph(document: dict, folder: Path) -> None:
    """The circuit on the canvas, and what the head that is picked there attends to."""
    slug = folder.name
    if circuit.by_feature(document):
        payload = circuit_graph.features(document, slug, _runs())
        canvas.graph(payload, f"circuit-{slug}")
        return
    picked = canvas.graph(circuit_graph.heads(document, slug), f"circuit-{slug}").picked
    known = document.get("prompts")
    examples = known.get("examples", ()) if isinstance(known, dict) else ()
    texts = [text for one in examples for text in (one["clean"], one["corrupted"]) if text]
    attention.section(picked, texts, slug, None, document["model"])


def _runs() -> dict[str, str]:
    return {str(folder.resolve()): name for name, folder in load.runs().items()}


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
    if by_feature and document["heads"]:
        state.show(draw.title("Heads", "summed |effect| of the features through each"))
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
    state.show(circuit.nodes(document, _runs(), 2 * ROWS))


def _edges(document: dict) -> None:
    agreement = circuit.agreement(document) + circuit.published(document)
    state.show(agreement + circuit.edges(document["edges"][:ROWS]))
