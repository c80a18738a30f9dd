"""All features: a table to search, sort and page through."""

import streamlit as st

from saelab.errors import UsageError

from .. import load, state, tables
from ..html import html

PAGE = 50


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    state.titled("Features", name)
    left, right = st.columns([3, 2], vertical_alignment="bottom")
    with left:
        text = state.search_box(name, "text in a strong token, or near a peak")
    sort = st.query_params.get("sort") or ("matches" if text.strip() else "interest")
    descending = st.query_params.get("descending", "1") == "1"
    address = {"sort": sort, "descending": descending, "q": text}
    offset = PAGE * _number(st.query_params.get("page", "0"))
    try:
        table = load.table(index, sort, descending, text, PAGE, offset)
    except UsageError as error:
        state.stop(str(error))
    with right:
        state.show(tables.pages(table.total, offset, PAGE, name, address))
    if not table.rows:
        n_tokens = index.summary["n_tokens"]
        state.stop(html("No feature matches <code>{}</code> in {:,} tokens.", text, n_tokens))
    other = (index.summary["others"] or [{}])[0]
    found = load.hits(index, text)
    state.show(tables.table(table.rows, name, address, other, hits=found))


def _number(word: str) -> int:
    """The page that the address names; the first one for what is no page's number."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
