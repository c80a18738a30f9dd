"""All features: a table to search, sort and page through."""

import streamlit as st

from saelab.errors import UsageError

from .. import draw, load, state, tables

PAGE = 50


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        text = state.search_box(name, "text in a strong token, or near a peak")
    sort = st.query_params.get("sort") or ("matches" if text.strip() else "density")
    descending = st.query_params.get("descending", "1") == "1"
    address = {"sort": sort, "descending": descending, "q": text}
    offset = PAGE * max(0, int(st.query_params.get("page", "0")))
    try:
        table = load.table(index, sort, descending, text, PAGE, offset)
    except UsageError as error:
        state.stop(draw.text(str(error)))
    with right:
        state.html(tables.pages(table.total, offset, PAGE, name, address))
    if not table.rows:
        n_tokens = index.summary["n_tokens"]
        state.stop(f"No feature matches <code>{draw.text(text)}</code> in {n_tokens:,} tokens.")
    state.html(tables.table(table.rows, name, address, (index.summary["others"] or [{}])[0]))
