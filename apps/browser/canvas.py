"""The canvas that graphs are drawn on: a component of our own, which loads nothing."""

from pathlib import Path
from typing import Any, NamedTuple

from streamlit.components.v2 import component

SCRIPTS = [Path(__file__).with_name(name) for name in ("graph_side.js", "graph.js")]


class Done(NamedTuple):
    """What a reader has done just now."""

    kept: dict[str, Any] | None
    """what was pinned, named or grouped, to be saved: slug, pinned, groups, names"""
    picked: str | None
    """the head that was chosen"""


def graph(payload: dict[str, Any], key: str) -> Done:
    """Draw a graph (see `graph.payload`)."""
    # Registered on every run because a registration belongs to the running server, not to the
    # imported module.
    drawn = component(
        "saelab_graph",
        html='<div class="sl graph"></div>',
        js="\n".join(script.read_text(encoding="utf-8") for script in SCRIPTS),
        isolate_styles=False,
    )
    done = drawn(
        data={**payload, "key": key},
        key=key,
        on_kept_change=lambda: None,
        on_picked_change=lambda: None,
    )
    return Done(done.kept, done.picked)
