"""On a feature's page: contexts beyond those of its index, read from the cache by a click."""

from pathlib import Path

import streamlit as st

from saelab.features.reader import FeatureIndex

from .. import contexts, draw, further, state
from ..background import Progress
from . import loading

STEP = 10  # contexts that a click reads
ABOUT = "drawn uniformly among its other firings, read from the cache; strongest first"


@st.fragment
def section(folder: Path, index: FeatureIndex, feature: int, width: int | None) -> None:
    """How many firings are known beyond the contexts shown; from a click on, STEP of them more for
    each click. Nothing where the index knows no more."""
    n_known = len(index.places(feature))
    if not n_known:
        return
    key = f"further_{folder}_{feature}"
    n = min(st.session_state.get(key, 0), n_known)

    def step() -> None:
        st.session_state[key] = n + STEP

    if n:
        _read(folder, index, feature, n, width)
    if n < n_known:
        left = min(STEP, n_known - n)
        label = f"Read {left} further contexts from the cache"
        st.button(label, key="further", on_click=step, type="tertiary")


def _read(folder: Path, index: FeatureIndex, feature: int, n: int, width: int | None) -> None:
    """The contexts; until they are there how far it is, or why they cannot be."""

    def look() -> Progress:
        return further.wanted(folder, feature, n)

    read = look()
    if not read.done:
        loading.waiting(look, "Reading further contexts")
    elif read.problem:
        loading.say(f"No further contexts: {read.problem}")
        st.button(
            "Try again", key="further_again", on_click=further.again, args=(folder, feature, n)
        )
    else:
        largest = abs(index.rows([feature])[0].max)
        shown = contexts.examples(read.result or [], largest, width)
        state.show(draw.title("Further contexts", ABOUT) + shown)
