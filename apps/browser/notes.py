"""Labels, notes, stars and lists on the pages: read, and edited in place."""

from pathlib import Path

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.features import annotation_files
from saelab.features.annotations import Annotation, Annotations
from saelab.features.reader import FeatureIndex

from . import draw, load, state
from .html import EMPTY, Markup, html, joined

PROBLEM = "annotations_problem"  # where the session keeps why a change was not written
HISTORY = 10  # latest changes shown


def annotated(folder: Path, index: FeatureIndex) -> tuple[dict[int, Annotation], Markup]:
    """What is said of features, and what is wrong with the file if it cannot be read, or that some
    of it is of another SAE."""
    try:
        said = load.annotated(folder, index)
        others = load.annotations(folder, index).of_others()
    except FailedRun as error:
        return {}, _told(str(error))
    if not others:
        return said, EMPTY
    told = f"Annotations of {others:,} features are of another SAE of this run, and not shown."
    return said, html('<p class="quiet">{}</p>', told)


def _told(problem: str) -> Markup:
    return html('<p class="empty">Annotations: {}</p>', draw.message(problem))


def editor(folder: Path, index: FeatureIndex, said: Annotation) -> None:
    """A row that edits what is said of a feature, each part as it is changed."""
    here = load.annotations(folder, index)
    if told := st.session_state.pop(PROBLEM, ""):
        state.show(_told(told))
    star, label, rest = st.columns([1.3, 6, 2], vertical_alignment="bottom")
    with star:
        _part(here, said, "starred", st.checkbox, "★ star", said.starred)
    with label:
        _part(here, said, "label", st.text_input, "Label", said.label, **UNSEEN_LABEL)
    with rest:
        popover = st.popover(_rest(said), key="note_and_lists", on_change="rerun")
    if popover.open:
        with popover:
            _part(here, said, "note", st.text_area, "Note", said.note, height=120)
            _lists(folder, index, here, said)
            state.show(_history(here, said.feature))


UNSEEN_LABEL = {"placeholder": "label: what it stands for", "label_visibility": "collapsed"}


def _rest(said: Annotation) -> str:
    """What the popover's button says: which of note and lists there are."""
    parts = ["note ✓" if said.note else "note"]
    parts.append(", ".join(said.lists) if said.lists else "lists")
    return " · ".join(parts)[:40]


def _part(here: Annotations, said: Annotation, field: str, widget, name: str, value, **options):
    """A widget for one field."""
    key = f"{field}_{here.path}_{said.feature}"

    def changed() -> None:
        _kept(here, said.feature, **{field: st.session_state[key]})

    st.session_state[key] = value
    widget(name, key=key, on_change=changed, **options)


def _lists(folder: Path, index: FeatureIndex, here: Annotations, said: Annotation) -> None:
    key = f"lists_{here.path}_{said.feature}"
    names = {name for one in annotated(folder, index)[0].values() for name in one.lists}

    def changed() -> None:
        chosen = set(st.session_state[key])
        change = {"add": chosen - {*said.lists}, "remove": {*said.lists} - chosen}
        _kept(here, said.feature, **change)

    st.session_state[key] = [*said.lists]
    st.multiselect(
        "Lists",
        sorted(names | {*said.lists}),
        key=key,
        on_change=changed,
        accept_new_options=True,
        placeholder="choose, or type a new one",
    )


def _kept(here: Annotations, feature: int, **change) -> None:
    """Write a change, or remember why it cannot be."""
    try:
        here.write(feature, **change)
    except (FailedRun, UsageError) as error:
        st.session_state[PROBLEM] = str(error)


def _history(here: Annotations, feature: int) -> Markup:
    edits = here.history(feature)[:HISTORY]
    if not edits:
        return html('<p class="quiet">Kept in {}.</p>', here.path.name)
    rows = (
        html("<p>{} {} {}: {}</p>", edit.at, edit.field, edit.name, edit.value or "–")
        for edit in edits
    )
    return html('<div class="quiet">Latest changes{}</div>', joined(rows))


def files(folder: Path, index: FeatureIndex, run: str) -> None:
    """Annotations to take away, and to bring back."""
    here = load.annotations(folder, index)
    said, problem = annotated(folder, index)
    if told := st.session_state.pop(PROBLEM, ""):
        problem = _told(told)
    state.show(problem + html("<p>{} features have annotations.</p>", len(said)))
    every = [said[number] for number in sorted(said)]
    name = run.replace("/", "-")
    as_csv, as_json, _ = st.columns([1, 1, 4])
    for column, kind, form in (
        (as_csv, "csv", annotation_files.to_csv),
        (as_json, "json", annotation_files.to_json),
    ):
        with column:
            file = f"{name}-annotations.{kind}"
            st.download_button(kind.upper(), form(here.sae, every), file, key=f"annotations_{kind}")
    given = st.file_uploader("bring back CSV or JSON", ["csv", "json"], key="annotations_file")
    if given is not None and st.button("Add these to the run's"):
        try:
            brought = annotation_files.read(given.getvalue().decode("utf-8", "replace"), here.sae)
            here.extend(brought)
            state.show(html("<p>{} features written.</p>", len(brought)))
        except (FailedRun, UsageError) as error:
            state.show(_told(str(error)))
