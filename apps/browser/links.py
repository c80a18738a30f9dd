"""Following the links that `draw` makes without reloading the page: a click becomes a rerun of the
script."""

from typing import Any
from urllib.parse import parse_qsl

import streamlit as st
from streamlit.components.v2 import component

# A plain click on a[data-page] is reported; with a modifier, or from another button, the browser
# follows the link itself. The query of one with data-merge changes the address's own, which it so
# need not repeat: before anything is pressed its href is made whole. Followed before this script
# has come it would lose the rest of the address, so style.css lets nobody press it until then. The
# arrow keys press the links marked rel=prev and rel=next unless something is being typed.
SCRIPT = """
export default function ({ setTriggerValue }) {
  const whole = (event) => {
    const link = event.target.closest("a[data-merge]");
    if (!link) return;
    const query = new URLSearchParams(location.search);
    for (const [name, value] of new URLSearchParams(link.dataset.merge)) {
      if (value) query.set(name, value);
      else query.delete(name);
    }
    link.search = query.toString();
  };
  const follow = (event) => {
    const link = event.target.closest("a[data-page]");
    if (!link || event.button) return;
    whole(event);
    if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
    event.preventDefault();
    setTriggerValue("go", { page: link.dataset.page, query: link.search.slice(1) });
  };
  const press = (event) => {
    const side = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
    if (!side || event.target.closest("input, textarea, [role=slider], [role=tab]")) return;
    document.querySelector(`a.${side}[data-page]`)?.click();
  };
  document.addEventListener("pointerdown", whole);
  document.addEventListener("focusin", whole);
  document.addEventListener("click", follow);
  document.addEventListener("keydown", press);
  document.documentElement.dataset.links = "followed";
  return () => {
    document.removeEventListener("pointerdown", whole);
    document.removeEventListener("focusin", whole);
    document.removeEventListener("click", follow);
    document.removeEventListener("keydown", press);
  };
}
"""


def follow(pages: dict[str, "st.Page"], current: str) -> None:
    """Go where the link that was clicked leads, if one was: on the current page by another query,
    else to the other page."""

    def same_page() -> None:
        clicked = st.session_state["links"].go
        if clicked and clicked["page"] == current:
            st.query_params.from_dict(dict(parse_qsl(clicked["query"])))

    # Registered on every run because a registration belongs to the running server, not to the
    # imported module.
    st.session_state["pages"] = pages
    clicked = component("saelab_links", js=SCRIPT)(key="links", on_go_change=same_page, height=1).go
    if clicked and clicked["page"] in pages and clicked["page"] != current:
        st.switch_page(pages[clicked["page"]], query_params=parse_qsl(clicked["query"]))


def go(page: str, **query: Any) -> None:
    """Show another page."""
    st.switch_page(
        st.session_state["pages"][page],
        query_params=[(key, str(value)) for key, value in query.items()],
    )
