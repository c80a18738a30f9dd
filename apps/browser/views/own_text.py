"""The box of a feature's page that shows it on one's own text."""

from pathlib import Path

import streamlit as st

from .. import asking, draw, prompt, state
from . import loading


@st.fragment
def box(name: str, folder: Path, feature: int) -> None:
    """A text in which the feature's activations are shaded; the model is loaded when there is a
    text. The address keeps it as `text`, so that the next feature is shown on it too."""
    state.show(draw.title("Test on my text", "its activation on every token"))

    def read() -> None:
        st.query_params.pop("text", None)
        st.session_state["own_text"] = text = st.session_state["own_text_box"]
        if 0 < len(text) <= prompt.LONGEST:
            st.query_params["text"] = text

    text = st.query_params.get("text") or st.session_state.get("own_text", "")
    st.session_state["own_text_box"] = text
    with st.form("own_text_form", border=False):
        hint = "type or paste a text"
        st.text_area(
            "My text", key="own_text_box", height=68, placeholder=hint, label_visibility="collapsed"
        )
        st.form_submit_button("Test", on_click=read)
    if not text:
        return
    there = loading.ready(name, folder)
    if there and (reading := loading.reading(there, text)):
        values = asking.trace(there.key, text, feature)
        state.show(prompt.own(reading.prompt, values, feature, name, text))
