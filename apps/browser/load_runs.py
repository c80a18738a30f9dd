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
def _verdicts(stamp: Stamp) -> dict[str, str]:
    rows = readable(Path(stamp[0])).get("differences", ())
    return {row["metric"]: row["verdict"] for row in rows if row.get("verdict")}


def verdicts(path: Path) -> dict[str, str]:
    """What a comparison says of its second run, by metric; nothing where it is damaged."""
    return _verdicts(stamped(path))
