"""The feature browser: `saelab browse` starts it; pages over run directories, their feature
indexes, and circuits."""

from pathlib import Path

import streamlit as st

from apps.browser import links, state

HERE = Path(__file__).parent

st.set_page_config(page_title="saelab", layout="wide")
st.html(HERE / "style.css")
# The folder is not called `pages`: Streamlit would serve its files by themselves until the first
# session has run this script.
PAGES = {
    name: st.Page(
        HERE / "views" / f"{name}.py", title=title, url_path=name, default=name == "overview"
    )
    for name, title in (
        ("overview", "Overview"),
        ("features", "Features"),
        ("feature", "Feature"),
        ("search", "Search"),
        ("circuits", "Circuits"),
    )
}
page = st.navigation(list(PAGES.values()), position="top")
links.follow(PAGES, page.url_path or "overview")
state.run_menu()
page.run()
