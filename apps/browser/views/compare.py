"""Two runs side by side: which is better in what, the features they share, those that one alone
has, and those that are split."""

from pathlib import Path
from typing import Any

import streamlit as st

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.runs import RunFolder

from .. import compared_features, comparison, contexts, draw, load, state
from ..compared_features import Side, Strong
from ..comparison import SIZE
from ..html import EMPTY, Markup, html, joined

EXAMPLES = 4  # contexts of each of a pair


def show() -> None:
    """The page."""
    runs = load.runs()
    name, folder = state.run()
    others = [other for other in runs if other != name]
    if not others:
        state.stop(html("One run is here, {}: comparing needs another.", name))
    state.show(html("<h1>Compare</h1>"))
    other = _other(folder, others, runs)
    document, names = _document((name, other), runs)
    state.show(_head(names) + _outdated(document, names, runs))
    differences = comparison.differences(document) + comparison.absorption(document)
    state.show(comparison.answers(document) + differences + comparison.over_seeds(document))
    state.show(comparison.shares(document))
    _listed(document, names, runs, {"run": name, "other": other})


def _other(folder: Path, others: list[str], runs: dict[str, Path]) -> str:
    """The second run, chosen in a menu: what the address names, else one that was compared."""
    compared = [other for other in others if _place(folder, runs[other])]
    default = (compared or others)[0]
    wanted = st.query_params.get("other", default)
    if wanted not in others:
        told = html(
            "There is no other run <code>{}</code>; there are {}.", wanted, ", ".join(others)
        )
        state.show(html('<p class="empty">{}</p>', told))
        wanted = default

    def chosen() -> None:
        run = st.query_params.get("run", "")
        st.query_params.from_dict({"run": run, "other": st.session_state["other"]})

    st.session_state["other"] = wanted
    left, _ = st.columns([2, 3])
    with left:
        st.selectbox("with", others, key="other", on_change=chosen)
    return wanted


def _place(one: Path, other: Path) -> Path | None:
    """Where the comparison of two runs is, as either's first."""
    for first, second in ((one, other), (other, one)):
        if (path := RunFolder(first).compared(second)).is_file():
            return path
    return None


def _document(pair: tuple[str, str], runs: dict[str, Path]) -> tuple[Any, tuple[str, str]]:
    """The comparison of two runs, and their names in its order."""
    one, other = (runs[name] for name in pair)
    path = _place(one, other)
    if path is None:
        command = html("<code>saelab compare {} {}</code>", one, other)
        state.stop(html("{} and {} are not compared yet: {}", *pair, command))
    names = pair if path.parent == RunFolder(one).path else (pair[1], pair[0])
    return load.document(path), names


def _head(names: tuple[str, str]) -> Markup:
    links = [
        html("{} {}", letter, draw.link("overview", draw.text(name), run=name))
        for letter, name in zip("AB", names, strict=True)
    ]
    return html("<p>{}</p>", joined(links, " · "))


def _outdated(document: Any, names: tuple[str, str], runs: dict[str, Path]) -> Markup:
    """That one of the runs holds another SAE by now."""
    changed = [
        name
        for name, field in zip(names, ("sae", "second_sae"), strict=True)
        if document[field] not in (None, RunFolder(runs[name]).sae_digest())
    ]
    if not changed:
        return EMPTY
    command = html("<code>saelab compare {} {}</code>", *(runs[name] for name in names))
    told = html("Of an earlier SAE of {}; {} makes it anew.", ", ".join(changed), command)
    return html('<p class="empty">{}</p>', told)


def _listed(
    document: Any, names: tuple[str, str], runs: dict[str, Path], query: dict[str, str]
) -> None:
    """One of the lists of features, a page of it."""
    views = comparison.views(document)
    view = st.query_params.get("show", "matched")
    view = view if view in views else "matched"
    state.titled("Compare", *names, views[view][0])
    opened = [_index(runs[name]) for name in names]
    for name, index in zip(names, opened, strict=True):
        if index is None:
            how = html("<code>saelab index {}</code>", runs[name])
            state.show(html('<p class="empty">Tokens of {} need its index: {}</p>', name, how))
    sides = tuple(
        Side(letter, name, _strong(index))
        for letter, name, index in zip("AB", names, opened, strict=True)
    )
    state.show(comparison.menu(document, view, query))
    if view.startswith("split"):
        state.show(comparison.splitting(document, view.removeprefix("split-")))
    asked = st.query_params.get("page", "0")
    total = views[view][1]
    page = int(asked) if asked.isascii() and asked.isdigit() and len(asked) < 10 else 0
    page = min(page, max(0, (total - 1) // SIZE))
    rows = slice(page * SIZE, min((page + 1) * SIZE, total))
    here = {**query, "show": view}
    _pair(opened, sides)
    state.show(_rows(document, view, rows, sides, {**here, "page": page}))
    state.show(comparison.paging(total, page, here))


def _rows(document: Any, view: str, rows: slice, sides: Any, here: dict[str, Any]) -> Markup:
    if rows.start >= rows.stop:
        return html('<p class="empty">There are none.</p>')
    if view in ("matched", "cofiring"):
        return compared_features.partners(document, view, rows, sides, here)
    if view in ("first", "second"):
        return compared_features.only(document, view, rows, sides)
    return compared_features.split(document, view.removeprefix("split-"), rows, sides)


def _index(folder: Path) -> FeatureIndex | None:
    try:
        return load.index(folder)
    except UsageError:  # of another version: its own pages say so
        return None


def _strong(index: FeatureIndex | None) -> Strong:
    def tokens(number: int) -> list[str]:
        if index is None or number >= index.n_features:
            return []
        return index.rows([number])[0].tokens[:4]

    return tokens


def _pair(opened: list[FeatureIndex | None], sides: Any) -> None:
    """The contexts of a pair that the address names, side by side."""
    words = st.query_params.get("pair", "").split("-")
    if len(words) != 2 or not all(word.isascii() and word.isdigit() for word in words):
        return
    for column, index, side, word in zip(st.columns(2), opened, sides, words, strict=True):
        with column:
            _contexts(index, side, int(word))


def _contexts(index: FeatureIndex | None, side: Side, number: int) -> None:
    if index is None or number >= index.n_features:
        return
    feature, examples = load.feature(index, number)
    heading = html("{} {}", side.letter, compared_features.feature(side, number))
    about = html("{}", draw.tokens(feature.row.tokens[:6]))
    state.show(draw.title(heading, about))
    top = [one for one in examples if one.band < 0][:EXAMPLES]
    state.show(contexts.examples(top, abs(feature.row.max)))
