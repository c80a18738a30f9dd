"""All features: a table to search, sort and page through."""

import streamlit as st

from apps.browser import draw, load, state, tables
from saelab.errors import UsageError

PAGE = 50

name, folder = state.run()
opened = state.index(name, folder)
summary = opened.summary
left, right = st.columns([3, 2], vertical_alignment="bottom")
with left:
    query = state.search_box(name, "text in a strong token, or near a peak")
sort = st.query_params.get("sort") or ("matches" if query.strip() else "density")
shown = {"sort": sort, "descending": st.query_params.get("descending", "1") == "1", "q": query}
offset = PAGE * max(0, int(st.query_params.get("page", "0")))
try:
    found = load.table(opened, sort, shown["descending"], query, PAGE, offset)
except UsageError as error:
    state.stop(draw.text(str(error)))
with right:
    state.html(tables.pages(found.total, offset, PAGE, name, shown))
if not found.rows:
    state.stop(
        f"No feature matches <code>{draw.text(query)}</code> in {summary['n_tokens']:,} tokens."
    )
state.html(tables.table(found.rows, name, shown, (summary["others"] or [{}])[0]))
