"""What the address says: the run and the feature shown. A menu click drops the query, so the
session remembers it."""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NoReturn

import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from saelab.errors import FailedRun, UsageError
from saelab.features.reader import FeatureIndex
from saelab.runs import RunFolder

from . import draw, load
from .html import html, joined


def show(body: str) -> None:
    """Place HTML made by `draw`; any other text is escaped."""
    st.html(html('<div class="sl">{}</div>', body))


def stop(message: str) -> NoReturn:
    """Say why there is nothing to show, and end the page."""
    show(html('<p class="empty">{}</p>', message))
    st.stop()


def titled(*words: object) -> None:
    """Name the page in the browser's title bar, its tabs and bookmarks."""
    st.set_page_config(page_title=" · ".join([*map(str, words), "saelab"]))


def query(key: str, default: str) -> str:
    """A part of the address, else what it was in this session, else `default`; the address then
    says so."""
    value = st.query_params.get(key) or st.session_state.get(f"last_{key}") or default
    st.session_state[f"last_{key}"] = value
    if st.query_params.get(key) != value:
        st.query_params[key] = value
    return value


def address(**changes: str) -> None:
    """Change the address; an empty text takes a part of it away."""
    for key, value in changes.items():
        if value:
            st.query_params[key] = value
        elif key in st.query_params:
            del st.query_params[key]


def control(
    widget: Callable, label: str, key: str, value: Any, clears: Iterable[str] = (), **options: Any
) -> Any:
    """A widget that shows a part of the address, and changes it; the list's page is the first
    again then, and what else it clears is as usual."""
    place = f"w_{key}"

    def changed() -> None:
        chosen = st.session_state[place]
        said = str(int(chosen)) if isinstance(chosen, bool) and chosen else chosen
        address(**dict.fromkeys(clears, ""), **{key: said or "", "page": ""})

    st.session_state[place] = value
    return widget(label, key=place, on_change=changed, **options)


@contextlib.contextmanager
def part(told: set[str]) -> Iterator[None]:
    """A part of the page, without which the rest goes on: what is wrong with its file is told, once
    for parts that share `told`."""
    try:
        yield
    except (FailedRun, UsageError) as error:
        if str(error) not in told:
            show(html('<p class="empty">{}</p>', draw.message(str(error))))
        told.add(str(error))


def section(label: str, key: str) -> DeltaGenerator | None:
    """A part of the page that is made once it is opened; None while it is closed."""
    expander = st.expander(label, key=key, on_change="rerun")
    return expander if expander.open else None


def run_menu() -> None:
    """A menu of the runs, if there are several."""
    names = list(load.runs())
    if len(names) < 2:
        return

    def chosen() -> None:
        st.session_state["last_run"] = st.query_params["run"] = st.session_state["menu"]

    current = st.query_params.get("run") or st.session_state.get("last_run")
    st.session_state["menu"] = current if current in names else names[0]
    with st.container(key="runs"):
        st.selectbox("Run", names, key="menu", on_change=chosen, label_visibility="collapsed")


def run() -> tuple[str, Path]:
    """The run shown: its name and folder."""
    runs = load.runs()
    if not runs:
        stop(html("No runs here yet: <code>saelab demo</code> makes one."))
    name = query("run", next(iter(runs)))
    if name not in runs:
        st.session_state.pop("last_run")
        links = (draw.link("overview", draw.text(other), run=other) for other in runs)
        gone = html("There is no run <code>{}</code>; there are {}.", name, joined(links, ", "))
        stop(gone)
    return name, runs[name]


def index(name: str, folder: Path) -> FeatureIndex:
    """The run's feature index; without one, what to type."""
    try:
        opened = load.index(folder)
    except (UsageError, FailedRun) as error:
        stop(draw.message(str(error)))
    if opened is None:
        stop(_no_index(name, RunFolder(folder)))
    return opened


def _no_index(name: str, run: RunFolder) -> str:
    """What to type for a run without an index: of one without a cache, what makes that first."""
    if layers := run.layers():
        names = ", ".join(one.path.name for one in layers)
        return html(
            "{} is a cross-layer transcoder; each layer's features are a run of their own: {}",
            name,
            names,
        )
    if run.is_unfinished():
        return html("{} has no features to show before its training has finished.", name)
    indexing = html("<code>saelab index {}</code>", run.path)
    if run.header.is_file() and run.origin().cache is None:
        capturing = html("<code>{}</code>", run.how_to_capture())
        return html(
            "{} has no cache and no feature index yet: {}, then {}", name, capturing, indexing
        )
    return html("{} has no feature index yet: {}", name, indexing)
