"""One feature: where it fires, how strongly, what it writes, what is near it, what is said of
it."""

from pathlib import Path
from typing import Any, NamedTuple

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.explaining import store
from saelab.features.annotations import Annotation
from saelab.features.listing import Beside
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature, Match
from saelab.features.search import AFTER, BEFORE
from saelab.runs import RunFolder

from .. import (
    beside,
    contexts,
    draw,
    explanation,
    facts,
    listing,
    load,
    load_lists,
    notes,
    state,
    tables,
)
from ..html import EMPTY, Markup, html, joined
from . import effect, further, own_text

WIDTHS = {"10": 10, "": BEFORE + AFTER, "all": None}  # in the address: tokens of a context shown


class Page(NamedTuple):
    """What the page is of."""

    name: str
    """of the run"""
    folder: Path
    opened: FeatureIndex
    feature: Feature
    examples: list[Example]
    query: dict[str, str]
    """the list walked and how contexts are shown, as the address says it"""

    @property
    def number(self) -> int:
        """The feature."""
        return self.feature.row.feature

    def link(self, body: Any, classes: str = "", /, **changes: Any) -> Markup:
        """A link to a feature's page that keeps the list."""
        query = {"run": self.name, "feature": self.number, **self.query, **changes}
        kept = {key: value for key, value in query.items() if value != ""}
        return draw.link("feature", body, classes, **kept)


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    feature, examples = _wanted(index)
    view = {key: st.query_params[key] for key in ("width", "more") if key in st.query_params}
    query = {**listing.read(st.query_params).query(), **view}
    page = Page(name, folder, index, feature, examples, query)
    said, problem = notes.annotated(folder, index)
    note = said.get(page.number, Annotation(page.number))
    state.titled(*filter(None, (f"Feature {page.number}", note.label, name)))
    signed = index.summary["signed"]
    runs = load.twins(name, index)
    top = facts.header(feature, index.summary["n_tokens"], signed, runs)
    top += facts.stability(load.stable(folder, index), page.number)
    state.show(joined([_head(page, note), _explanations(page), problem, top]))
    notes.editor(folder, index, note)
    if examples:
        wide, narrow = st.columns([5, 3], gap="medium")
        with wide:
            _contexts(page)
    else:
        narrow, _ = st.columns([3, 5])
    with narrow:
        _facts(page)
    if examples:
        effect.section(name, folder, index, page.number, examples)
    own_text.box(name, folder, page.number)
    for match in feature.matches:
        if match.name in runs:
            _side_by_side(match, runs[match.name])


def _wanted(index: FeatureIndex) -> tuple[Feature, list[Example]]:
    """The feature that the address names, and its examples."""
    wanted = state.query("feature", "0")
    try:
        return load.feature(index, int(wanted))
    except (UsageError, ValueError):
        there = f"this SAE has features 0 to {index.n_features - 1:,}."
        state.stop(html("No feature <code>{}</code>: {}", wanted, there))


def _head(page: Page, note: Annotation) -> Markup:
    """The feature's number and label, links to the ones before and after it in the list, and where
    it was read."""
    label = html(' <span class="label">{}</span>', text) if (text := note.label) else EMPTY
    beside = _beside(page)
    previous = page.link("← previous", "step prev", feature=beside.previous)
    following = page.link("next →", "step next", feature=beside.next)
    place = EMPTY
    if beside.place is not None:
        number = f"{beside.place + 1:,} of {beside.total:,}"
        back = {key: text for key, text in page.query.items() if key not in ("width", "more")}
        place = draw.link("features", number, run=page.name, **back)
    reads = " · ".join(f"{name} {value}" for name, value, _ in tables.place(page.opened.summary))
    return html(
        '<div class="head"><h1>Feature {}{}</h1>{}{}{}<span class="quiet">{} · {}</span></div>',
        page.number,
        label,
        previous,
        place,
        following,
        page.name,
        reads,
    )


def _beside(page: Page) -> Beside:
    """Who stands before and behind it: at the ends of the list, and outside it, as in a ring."""
    n_features = page.opened.n_features
    by_number = Beside((page.number - 1) % n_features, (page.number + 1) % n_features, None, 0)
    try:
        order = load_lists.listed(page.folder, page.opened, listing.read(page.query)).order
    except (FailedRun, UsageError):
        return by_number
    beside = page.opened.beside(page.number, order)
    if beside.place is None:
        return by_number
    previous = int(order[-1]) if beside.previous is None else beside.previous
    following = int(order[0]) if beside.next is None else beside.next
    return beside._replace(previous=previous, next=following)


def _explanations(page: Page) -> Markup:
    try:
        said = store.of_feature(RunFolder(page.folder), page.number)
    except (FailedRun, UsageError) as error:
        return html('<p class="empty">{}</p>', draw.message(str(error)))
    return explanation.section(said)


def _contexts(page: Page) -> None:
    """Its contexts by band; how wide they are, and whether all are shown, stands in the address."""
    width, more = page.query.get("width", ""), page.query.get("more") == "1"
    width = width if width in WIDTHS else ""
    choices = [
        page.link(key or str(BEFORE + AFTER), "step on" if key == width else "step", width=key)
        for key in WIDTHS
    ]
    every = page.link("fewer" if more else "more contexts", "step", more="" if more else "1")
    widths = html('<span class="quiet">tokens shown</span>{}', joined(choices, " "))
    is_of_images = "images" in page.opened.summary
    bar = html('<div class="head">{}{}</div>', EMPTY if is_of_images else widths, every)
    few = contexts.DENSE if page.feature.row.density > contexts.DENSITY else contexts.FEW
    most = contexts.EVERY if more else few
    largest = abs(page.feature.row.max)
    state.show(bar + contexts.bands(page.examples, largest, WIDTHS[width], most))
    further.section(page.folder, page.opened, page.number, WIDTHS[width])


def _facts(page: Page) -> None:
    """What it writes and how it fires; what is near it."""
    state.show(beside.facts_of(page.feature, page.name, **page.query))
    by_mean = page.feature.by_mean
    if by_mean and (section := state.section("Strongest tokens by mean", "by_mean")):
        with section:
            state.show(facts.strong_tokens(by_mean, "mean"))


def _side_by_side(match: Match, run: str) -> None:
    """What another run's feature that is paired with it, or nearest, fires on and writes."""
    there = match.nearest if match.partner is None else match.partner
    section = state.section(f"Beside it: feature {there} of {match.name}", f"beside_{match.name}")
    if section is None:
        return
    with section:
        try:
            index = state.index(run, load.runs()[run])
            feature, examples = load.feature(index, there)
        except (FailedRun, UsageError, KeyError) as error:
            state.show(html('<p class="empty">{}</p>', draw.message(str(error))))
            return
        left, right = st.columns([5, 3], gap="medium")
        with left:
            largest = abs(feature.row.max)
            shown = contexts.bands(examples, largest, most=(contexts.FEW[0], 0))
            state.show(draw.link("feature", f"feature {there}", run=run, feature=there) + shown)
        with right:
            state.show(facts.output_tokens(feature.promoted[:5], feature.suppressed[:5]))
            state.show(facts.strong_tokens(feature.by_total[:5], "total"))
