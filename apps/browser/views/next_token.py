"""The panel of a text's next token: what may come, and where the logit of one comes from."""

import streamlit as st

from .. import asking, draw, next_token, state
from .shown import Shown

ROWS = 15  # of the table
FIELDS = ("next", "against")  # of the address


def panel(page: Shown) -> None:
    """What may come next; where the logit of the one that the address names comes from."""
    number = _number(st.query_params.get("next_id", ""))
    chips = next_token.likely(asking.likely(page.key, page.text), number)
    state.show(draw.title("Next token", "click one to see where its logit comes from") + chips)
    for field in FIELDS:
        st.session_state[f"prompt_{field}"] = st.query_params.get(field, "")
    with st.form("next", border=False):
        one, other, go = st.columns([5, 5, 6], vertical_alignment="bottom")
        one.text_input("Another token", key="prompt_next", placeholder="blank and all")
        other.text_input("Less that of", key="prompt_against", placeholder="optional")
        go.form_submit_button("Attribute", on_click=_asked)
    wanted = st.query_params.get("next") if number is None else number
    if wanted is not None:
        _attribution(page, wanted, st.query_params.get("against"))


def _asked() -> None:
    """Put the form into the address."""
    st.query_params.pop("next_id", None)
    for field in FIELDS:
        if word := st.session_state[f"prompt_{field}"]:
            st.query_params[field] = word
        else:
            st.query_params.pop(field, None)


def _attribution(page: Shown, wanted: str | int, against: str | None) -> None:
    """The sum, and its largest parts."""
    frozen = st.query_params.get("frozen") == "1"
    with st.spinner("attributing"):
        parts = asking.attribution(page.key, page.text, wanted, against, frozen)
    rows = page.reading.table
    largest = parts.features.abs().argsort(descending=True)[:ROWS]
    known = page.known(rows.feature[largest].tolist())
    other = None if parts.against is None else asking.written(page.key, [parts.against])
    words = (asking.written(page.key, [parts.token]), other)
    body = next_token.attribution(rows, parts, words, page.run, page.reading.prompt, known, ROWS)
    state.show(body)


def _number(word: str) -> int | None:
    """A token's number as the address writes it; None for what is none."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 12 else None
