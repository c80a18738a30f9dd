"""What a head attends to on a prompt: shown once it is asked for, as it needs the model."""

from collections.abc import Sequence
from pathlib import Path

import streamlit as st

from saelab.errors import UsageError

from .. import asking, circuit_graph, draw, state
from .. import attention as figure_of
from . import loading

QUIET = {"displayModeBar": False}


def section(
    picked: str | None,
    texts: Sequence[str],
    name: str,
    folder: Path | None,
    model_name: str | None = None,
) -> None:
    """The head that was picked on the canvas; it stays until another is.

    texts: prompts to see it on. name: of the circuit or graph. folder: a run whose model it is;
    None for the model that is named alone.
    """
    place = f"head_of_{name}"
    if picked:
        st.session_state[place] = picked
    head = circuit_graph.head_of(st.session_state.get(place, ""))
    if head is None or not texts:
        return
    layer, number = head
    state.show(draw.title(f"Head a{layer}.h{number}", "what it attends to; rows attend to columns"))
    text = texts[0]
    if len(texts) > 1:
        text = st.selectbox("Prompt", texts, key=f"text_{place}")
    # A model is read into memory only for those who ask for it.
    if not st.session_state.get("attention_asked"):
        st.button("Load the model and show it", key="attention_asked_now", on_click=_ask)
        return
    there = loading.ready(name, folder, model_name)
    if there is None:
        return
    try:
        read = asking.attention(there.key, text, layer)
        if number >= len(read.shares):
            raise UsageError(f"no head {number}: this model has {len(read.shares)}")
    except UsageError as problem:
        loading.say(str(problem))
        return
    figure = figure_of.attention(read.texts, read.shares[number])
    st.plotly_chart(figure, config=QUIET, key=f"attention_{place}")


def _ask() -> None:
    st.session_state["attention_asked"] = True
