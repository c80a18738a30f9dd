"""The panel that continues a text with features edited, beside the original and two controls."""

import streamlit as st

from saelab.errors import UsageError

from .. import asking, continuations, draw, state
from ..html import html
from .shown import Shown

WAYS = {
    "scale": "scale by",
    "clamp": "clamp to",
    "add": "add",
    "ablate": "ablate",
}
LOSS_TOKENS = 5000
NEW = (10, 30, 60)


def panel(page: Shown, shown: str) -> None:
    """Which features, how, and what comes of it; `steer` of the address says both."""
    state.show(draw.title("Steer", "the text goes on with features edited; the SAE's error stays"))
    words = st.query_params.get("steer", "")
    _form(words, shown)
    if not words:
        return
    loss = LOSS_TOKENS if st.query_params.get("loss") == "1" else 0
    new = int(st.query_params.get("new", "30")) if _is_new() else 30
    # As many as the context has room for; none is refused with the numbers.
    new = max(1, min(new, asking.room(page.key, page.text)))
    heat = 1.0 if st.query_params.get("drawn") == "1" else 0.0
    try:
        steps = asking.steps_of(words, new, heat, loss)
        with st.spinner("steering"):
            steered = asking.steering(page.key, page.text, steps)
    except UsageError as problem:
        state.show(html('<p class="empty">{}</p>', draw.message(str(problem))))
        return
    said = ", ".join(_said(*edit) for edit in steps.edits)
    body = continuations.continuations(steered, lambda ids: asking.written(page.key, ids), said)
    state.show(body)


def _is_new() -> bool:
    return st.query_params.get("new", "") in map(str, NEW)


def _said(feature: int, mode: str, value: float) -> str:
    return f"{feature} {mode}" + ("" if mode == "ablate" else f" {value:g}")


def _form(words: str, shown: str) -> None:
    """What the address says, to be changed."""
    edits = [edit.split(":") for edit in words.split(",") if edit]
    features = ",".join(edit[0] for edit in edits) or shown.split(",")[0]
    ways = [edit[1] for edit in edits if len(edit) > 1 and edit[1] in WAYS]
    values = [edit[2] for edit in edits if len(edit) > 2]
    st.session_state["steer_features"] = features
    st.session_state["steer_way"] = ways[0] if ways else "scale"
    st.session_state["steer_value"] = ",".join(values) or "2"
    st.session_state["steer_new"] = int(st.query_params["new"]) if _is_new() else 30
    st.session_state["steer_drawn"] = st.query_params.get("drawn") == "1"
    st.session_state["steer_loss"] = st.query_params.get("loss") == "1"
    with st.form("steer", border=False):
        columns = st.columns([3, 2, 2, 2, 2, 3, 2], vertical_alignment="bottom")
        columns[0].text_input("Features", key="steer_features", placeholder="17 or 17,5")
        columns[1].selectbox("How", list(WAYS), key="steer_way", format_func=WAYS.__getitem__)
        columns[2].text_input("Value", key="steer_value")
        columns[3].selectbox("New tokens", NEW, key="steer_new")
        columns[4].checkbox("sample", key="steer_drawn")
        columns[5].checkbox("loss on held-out text", key="steer_loss")
        columns[6].form_submit_button("Steer", on_click=_steer)


def _steer() -> None:
    """Put the form into the address."""
    state_ = st.session_state
    features = [word.strip() for word in state_["steer_features"].split(",") if word.strip()]
    values = [word.strip() for word in state_["steer_value"].split(",") if word.strip()] or ["1"]
    values = values * len(features) if len(values) == 1 else values
    way = state_["steer_way"]
    pairs = zip(features, values, strict=False)
    edits = [
        f"{feature}:{way}:{value}" if way != "ablate" else f"{feature}:{way}"
        for feature, value in pairs
    ]
    query = {
        "steer": ",".join(edits),
        "new": str(state_["steer_new"]),
        "drawn": "1" if state_["steer_drawn"] else "",
        "loss": "1" if state_["steer_loss"] else "",
    }
    for key, value in query.items():
        if value:
            st.query_params[key] = value
        else:
            st.query_params.pop(key, None)
