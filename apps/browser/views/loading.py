"""What a page needs in the background: a progress line until it is there; of a model also what to
do where it is not, and a text as it reads it."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from saelab.errors import UsageError

from .. import asking, draw, model, state
from ..background import Progress
from ..html import html
from ..model import Loading

if TYPE_CHECKING:
    from saelab.prompting import Reading

EVERY = 1.0  # seconds between two looks


def ready(name: str, folder: Path | None, model_name: str | None = None) -> Loading | None:
    """The run with its model, or a model alone (folder None, its name given); until it is loaded a
    line that says how far it is, and None. Where it cannot be loaded: why, a place to say where the
    model lies now, and None.

        if (there := loading.ready(name, folder)) and (read := loading.reading(there, text)):
            values = asking.trace(there.key, text, feature)
    """
    named = _named(name) or model_name

    def look() -> Loading:
        return model.wanted(folder, named)

    there = look()
    if not there.done:
        waiting(look, "Loading the model")
    elif there.problem:
        _elsewhere(name, folder, there.problem, named)
    else:
        return there
    return None


def reading(there: Loading, text: str, **options: Any) -> "Reading | None":
    """A text as the model reads it; where it cannot be read: why, and None. options: as of
    `asking.reading`."""
    try:
        with st.spinner("reading"):
            return asking.reading(there.key, text, **options)
    except UsageError as problem:
        say(str(problem))
        return None


def say(problem: str) -> None:
    """Why a part of the page is not there."""
    state.show(html('<p class="empty">{}</p>', draw.message(problem)))


@st.fragment(run_every=EVERY)
def waiting(look: Callable[[], Loading | Progress], what: str) -> None:
    """A line that says how far it is, until it is done; then the page runs again."""
    there = look()
    if there.done:
        st.rerun()
    stage = f"{there.stage} … {there.seconds:.0f} s"
    state.show(html('<p class="empty" role="status">{}: {}</p>', what, stage))


def _named(name: str) -> str | None:
    """Where the user has said that the model of a run lies; never the address, as a link from
    elsewhere must not have a model fetched."""
    return st.session_state.get(f"model_of_{name}") or None


def _elsewhere(name: str, folder: Path | None, problem: str, named: str | None) -> None:
    """Why there is no model, and what to type."""
    say(f"No model: {problem}")

    def said() -> None:
        st.session_state[f"model_of_{name}"] = st.session_state["model_place"].strip()

    def again() -> None:
        model.again(folder, named)

    left, right = st.columns([4, 1], vertical_alignment="bottom")
    with left:
        label = "Where the model lies now: a folder in Hugging Face layout, or bundled"
        st.text_input(label, key="model_place", on_change=said, placeholder="models/gpt2")
    with right:
        st.button("Try again", on_click=again)
