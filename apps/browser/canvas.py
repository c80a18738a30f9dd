"""The canvas that graphs are drawn on: a component of our own, which loads nothing."""

from pathlib import Path
from typing import Any

from streamlit.components.v2 import component

SCRIPT = Path(__file__).with_name("graph.js")


def graph(payload: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Draw a graph (see `graph.payload`). What was pinned, named or grouped just now, to be saved:
    slug, pinned, groups, names; else None."""
    # Registered on every run because a registration belongs to the running server, not to the
    # imported module.
    drawn = component(
        "saelab_graph",
        html='<div class="sl graph"></div>',
        js=SCRIPT.read_text(encoding="utf-8"),
        isolate_styles=False,
    )
    return drawn(data={**payload, "key": key}, key=key, on_kept_change=lambda: None).kept
