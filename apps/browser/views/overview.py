"""The run at a glance: what it is, how good it is, how training went, how its features are
spread."""

from pathlib import Path

import streamlit as st

from saelab.features.reader import FeatureIndex
from saelab.outdated import outdated
from saelab.runs import RunFolder, read

from .. import charts, dark_matter, draw, heads, load, state, supervised, tables

QUIET = {"displayModeBar": False}
TRAINING = "over tokens; dead: not fired on the last tokens of training, dead_window of them"


def show() -> None:
    """The page."""
    name, folder = state.run()
    state.titled("Overview", name)
    _documents(name, folder)
    with state.part(set()):
        if figure := charts.curves(load.curves(folder)):
            state.show(draw.title("Training", TRAINING))
            st.plotly_chart(figure, config=QUIET, key="curves")
    index = state.index(name, folder)
    state.show(tables.indexed(index.summary))
    left, right = st.columns(2)
    with left:
        _densities(index)
    with right:
        _other_seeds(index)


def _documents(name: str, folder: Path) -> None:
    """What verbs have written into the run."""
    run, told = RunFolder(folder), set[str]()
    with state.part(told):
        state.show(tables.about(name, read(run.header)))
    with state.part(told):
        state.show(tables.outdated(outdated(run), str(folder)))
    with state.part(told):
        if not run.is_unfinished():
            state.show(tables.report(read(run.report), str(folder)))
    with state.part(told):
        documents = run.documents()
        for document in documents.get("dark-matter", ()):
            state.show(dark_matter.section(document))
        for document in documents.get("heads", ()):
            state.show(heads.section(document, name))
        for document in documents.get("supervise", ()):
            state.show(supervised.section(document))


def _densities(index: FeatureIndex) -> None:
    density_F = index.densities()
    if not (density_F > 0).any():
        return
    state.show(draw.title("Density", "of live features"))
    st.plotly_chart(charts.densities(density_F), config=QUIET, key="densities")


def _other_seeds(index: FeatureIndex) -> None:
    alive_F = index.densities() > 0
    for number, other in enumerate(index.summary["others"]):
        state.show(draw.title(f"Nearest in {other['name']}"))
        cosine_A = index.cosines(number)[alive_F]
        figure = charts.cosines(cosine_A, other["null"], other["threshold"])
        st.plotly_chart(figure, config=QUIET, key=f"cosines{number}")
