"""A page that needs a model: a progress line until it is loaded, and what to do where it is not
there."""

from pathlib import Path

import streamlit as st

from .. import draw, model, state
from ..html import html
from ..model import Loading

EVERY = 1.0  # seconds between two looks


def ready(name: str, folder: Path) -> Loading | None:
    """The run with its model; until it is loaded a line that says how far it is, and None. Where it
    cannot be loaded: why, a place to say where the model lies now, and None.

        if there := loading.ready(name, folder):
            reading = asking.reading(there.key, text)
    """
    there = model.wanted(folder, _named(name))
    if there.bench is not None:
        return there
    if there.problem:
        _elsewhere(name, folder, there.problem)
    else:
        _waiting(name, folder)
    return None


def _named(name: str) -> str | None:
    """Where the user has said that the model of a run lies; never the address, as a link from
    elsewhere must not have a model fetched."""
    return st.session_state.get(f"model_of_{name}") or None


@st.fragment(run_every=EVERY)
def _waiting(name: str, folder: Path) -> None:
    there = model.wanted(folder, _named(name))
    if there.bench is not None or there.problem:
        st.rerun()
    stage = f"{there.stage} … {there.seconds:.0f} s"
    state.show(html('<p class="empty" role="status">Loading the model: {}</p>', stage))


def _elsewhere(name: str, folder: Path, problem: str) -> None:
    """Why there is no model, and what to type."""
    state.show(html('<p class="empty">No model: {}</p>', draw.message(problem)))

    def said() -> None:
        st.session_state[f"model_of_{name}"] = st.session_state["model_place"].strip()

    def again() -> None:
        model.again(folder, _named(name))

    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        label = "Where the model lies now: a folder in Hugging Face layout, or bundled"
        st.text_input(label, key="model_place", on_change=said, placeholder="models/gpt2")
    with right:
        st.button("Try again", on_click=again)
