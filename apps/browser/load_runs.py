"""What the pages of several runs read of their files, kept while these stay as they are."""

from pathlib import Path

import streamlit as st

from .load import Stamp, stamped
from .standing import readable
from .tail import Tail


@st.cache_resource(max_entries=256, show_spinner=False)
def tail(path: Path) -> Tail:
    """A growing file of JSON lines, one reader of it for all sessions."""
    return Tail(path)


@st.cache_data(max_entries=1024, show_spinner=False)
def _verdicts(stamp: Stamp, *, over_seeds: bool) -> dict[str, str]:
    document = readable(Path(stamp[0]))
    if over_seeds and "configurations" in document and document["configurations"] is None:
        # One configuration: its runs differ by their seeds alone.
        return {row["metric"]: "not told apart" for row in document["differences"]}
    part = document.get("configurations") or {} if over_seeds else document
    return {row["metric"]: row["verdict"] for row in part.get("differences", ()) if row["verdict"]}


def verdicts(path: Path, *, over_seeds: bool = False) -> dict[str, str]:
    """What a comparison says of its second run, or of that one's configuration, by metric; nothing
    where it is damaged."""
    return _verdicts(stamped(path), over_seeds=over_seeds)
