"""The list of features: searched, filtered, sorted, paged, and laid out on a map."""

import random
from pathlib import Path

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.features.reader import FeatureIndex

from .. import charts, draw, links, listing, lists, load, load_lists, notes, plane, state
from ..html import EMPTY, Markup, html, joined
from ..listing import Listing

PAGE = 30
DENSITIES = (0.0, 1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1, 1.0)
PLACEHOLDER = "a token, words, or a label"


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    wanted = listing.read(st.query_params)
    state.titled(f"“{wanted.q}”" if wanted.q else "Features", name)
    said, problem = notes.annotated(folder, index)
    _search(wanted)
    found, why = None, EMPTY
    try:
        found = load_lists.listed(folder, index, wanted)
    except (UsageError, FailedRun) as error:
        why = draw.message(str(error))
    lists_of = sorted({one for row in said.values() for one in row.lists})
    _controls(name, folder, index, wanted, found, lists_of)
    if found is None:
        state.stop(why)
    offset = PAGE * _number(st.query_params.get("page", "0"))
    offset = offset if offset < len(found.order) else 0
    rows = index.rows(found.order[offset : offset + PAGE])
    other = (index.summary["others"] or [{}])[0]
    top = lists.pages(len(found.order), offset, PAGE, name, wanted, index.n_features)
    body = _none(name, wanted, index)
    if rows:
        stable = load.stable(folder, index)
        body = lists.table(rows, name, wanted, other, found.hits, said, stable)
    state.show(joined([problem, lists.order(wanted), top, body]))
    _places(name, index, wanted)
    _map(index, wanted, found)
    if section := state.section("Annotations as files", "annotations"):
        with section:
            notes.files(folder, index, name)


def _none(name: str, wanted: Listing, index: FeatureIndex) -> Markup:
    if wanted.q:
        told = html("No feature matches <code>{}</code>", wanted.q)
    else:
        told = html("No feature is kept")
    there = f" on {index.summary['n_tokens']:,} tokens"
    filters = " with the filters that are set" if wanted.filters else ""
    wider = EMPTY
    if wanted.q and wanted.scope != "all":
        query = {"run": name, **wanted.changed(scope="all").query()}
        wider = html(" {}", draw.link("features", "Search everywhere", **query))
    return html('<p class="empty">{}{}{}.{}</p>', told, there if wanted.q else "", filters, wider)


def _search(wanted: Listing) -> None:
    words, scope, whole = st.columns([6, 2, 2], vertical_alignment="bottom")
    with words:
        options = {"placeholder": PLACEHOLDER, "clears": ("sort", "descending")}
        state.control(st.text_input, "Search", "q", wanted.q, **options)
    with scope:
        options = {"options": [*listing.SCOPES], "format_func": listing.SCOPES.get}
        state.control(st.selectbox, "in", "scope", wanted.scope, **options)
    with whole:
        state.control(st.checkbox, "whole token", "whole", wanted.whole)


def _controls(
    name: str,
    folder: Path,
    index: FeatureIndex,
    wanted: Listing,
    found: load_lists.Listed | None,
    names: list[str],
) -> None:
    """Filters, the way to a number, and to any one of the list."""
    filters, number, chance, _ = st.columns([2, 2, 2, 4], vertical_alignment="center")
    with filters:
        label = f"Filters ({wanted.filters})" if wanted.filters else "Filters"
        popover = st.popover(label, key="filters", on_change="rerun")
        if popover.open:
            with popover:
                _filters(name, folder, index, wanted, names)
    with number:
        asked = st.text_input(
            "Feature number",
            key="number",
            placeholder="feature number",
            label_visibility="collapsed",
        )
        if asked.strip() and st.session_state.get("number_asked") != asked:
            st.session_state["number_asked"] = asked
            links.go("feature", run=name, feature=asked.strip(), **wanted.query())
    with chance:
        if found is not None and len(found.order):
            any_one = int(random.choice(found.order))
            query = {"run": name, "feature": any_one, **wanted.query()}
            state.show(draw.link("feature", "random", "step", **query))


def _filters(
    name: str, folder: Path, index: FeatureIndex, wanted: Listing, names: list[str]
) -> None:
    low = max((at for at in DENSITIES if at <= wanted.low), default=0.0)
    high = min((at for at in DENSITIES if at >= wanted.high), default=1.0)
    st.session_state["w_density"] = (low, high)
    st.select_slider(
        "density, from and to",
        DENSITIES,
        key="w_density",
        format_func=lambda at: f"{100 * at:g}%",
        on_change=_density,
    )
    alive = {"options": [*listing.ALIVE], "format_func": listing.ALIVE.get}
    state.control(st.selectbox, "fired in the index", "alive", wanted.alive, **alive)
    if index.summary["signed"]:
        signs = {"options": [*listing.SIGNS], "format_func": listing.SIGNS.get}
        state.control(st.selectbox, "activations", "sign", wanted.sign, **signs)
    absent = {"found"} if load.stable(folder, index) else {"found", "stable", "unstable"}
    kinds = {key: said for key, said in listing.ONLY.items() if key not in absent}
    for other in index.summary["others"][:1]:
        kinds["found"] = f"found in {other['name']}"
    kinds |= {f"{listing.LIST}{one}": f"on the list “{one}”" for one in names}
    kinds.setdefault(wanted.only, wanted.only)
    options = {"options": [*kinds], "format_func": kinds.get}
    state.control(st.selectbox, "only", "only", wanted.only, **options)
    state.show(draw.link("features", "clear all", "step", run=name, **_bare(wanted)))


def _bare(wanted: Listing) -> dict[str, str]:
    """The list's query without filters."""
    kept = {"q", "scope", "whole", "sort", "descending"}
    return {key: value for key, value in wanted.query().items() if key in kept}


def _density() -> None:
    low, high = st.session_state["w_density"]
    state.address(
        low="" if low == 0 else f"{low:g}", high="" if high == 1 else f"{high:g}", page=""
    )


def _places(name: str, index: FeatureIndex, wanted: Listing) -> None:
    """Where the searched text stands, once that is opened."""
    if not wanted.q.strip():
        return
    section = st.expander("Places in the corpus", key="places", on_change="rerun")
    if not section.open:
        return
    with section:
        places = load_lists.passages(index, wanted.asked)
        if not places:
            state.show(html('<p class="empty">It stands in no indexed context.</p>'))
        state.show(joined(lists.passage(place, name, wanted) for place in places))


def _map(index: FeatureIndex, wanted: Listing, found: load_lists.Listed) -> None:
    """The decoder directions in a plane, whose boxes filter, once that is opened."""
    section = st.expander("Map of decoder directions", key="map", on_change="rerun")
    if not section.open:
        return
    with section:
        laid = index.map()
        if laid is None:
            how = html("<code>saelab index {} --map</code> makes one", index.path.parent)
            state.show(html('<p class="empty">This index has no map: {}.</p>', how))
            return
        state.show(draw.title(laid.method, lists.map_words(laid.method)))
        figure = plane.figure(laid.places, found.order, wanted.box)
        options = {"on_select": _boxed, "selection_mode": "box", "config": charts.BARE}
        st.plotly_chart(figure, key="plane", **options)


def _boxed() -> None:
    """Keep what lies in the box that was drawn."""
    boxes = st.session_state["plane"]["selection"]["box"]
    if boxes:
        (left, right), (bottom, top) = (sorted(boxes[-1][axis]) for axis in ("x", "y"))
        state.address(box=",".join(f"{at:.4g}" for at in (left, right, bottom, top)), page="")


def _number(word: str) -> int:
    """The page that the address names; the first one for what is no page's number."""
    return int(word) if word.isascii() and word.isdigit() and len(word) < 10 else 0
