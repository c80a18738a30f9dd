"""The feature browser: `saelab browse` starts it; pages over run directories, their feature
indexes, and circuits."""

from pathlib import Path

import streamlit as st

from saelab.errors import FailedRun

from . import draw, links, saving, state
from .views import (
    circuits,
    compare,
    feature,
    features,
    graphs,
    overview,
    picture,
    prompt,
    runs,
    search,
)

# name in the address: title, and the function that shows the page
PAGES = {
    "overview": ("Overview", overview.show),
    "runs": ("Runs", runs.show),
    "features": ("Features", features.show),
    "feature": ("Feature", feature.show),
    "picture": ("Image", picture.show),
    "prompt": ("Prompt", prompt.show),
    "search": ("Features", search.show),
    "compare": ("Compare", compare.show),
    "circuits": ("Circuits", circuits.show),
    "graphs": ("Graphs", graphs.show),
}
HIDDEN = ("search", "picture")  # of the menu: an address of earlier versions; reached by links


def show() -> None:
    """Show the page that the address names, below a menu of the pages and of the runs."""
    st.set_page_config(page_title="saelab", layout="wide")
    st.html(Path(__file__).with_name("style.css"))
    pages = {
        name: st.Page(
            page,
            title=title,
            url_path=name,
            default=name == "overview",
            visibility="hidden" if name in HIDDEN else "visible",
        )
        for name, (title, page) in PAGES.items()
    }
    current = st.navigation(list(pages.values()), position="top")
    state.titled(current.title)
    links.follow(pages, current.url_path or "overview")
    state.run_menu()
    saving.forget()
    try:
        current.run()
        saving.menu(current.url_path or "overview")
    except FailedRun as error:  # a damaged file, which the message names
        state.stop(draw.message(str(error)))
