"""One's own text: which features fire on it, what they do to the loss and to the next token, how it
compares with another text, and how it goes on with features edited."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import streamlit as st

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex

from .. import asking, draw, load, prompt, saving, state
from ..exports import prompt_files
from ..html import html
from . import loading, next_token, steer
from .shown import Shown

ROWS = 15  # of a table
TRACES = 8  # at most
KEYS = ("run", "by", "show", "frozen", "estimate")  # parts of the address that outlive a new text


def show() -> None:
    """The page."""
    name, folder = state.run()
    state.titled("Prompt", name)
    state.show(html('<div class="head"><h1>Prompt</h1><span class="quiet">{}</span></div>', name))
    text = _box()
    if not text:
        state.stop(
            "Type or paste a text, and read it: which features fire on each token, what they do to "
            "the loss, and where the next token comes from."
        )
    there = loading.ready(name, folder)
    estimate = prompt.estimate(st.query_params.get("estimate", ""))
    if there and (reading := loading.reading(there, text, estimate=estimate)):
        _sections(Shown(name, there.key, text, reading, _index(folder), estimate))


def _index(folder: Path) -> FeatureIndex | None:
    try:
        return load.index(folder)
    except UsageError:  # the features' page says what is wrong with it
        return None


def _told(section: Callable[..., None], *arguments: Any) -> None:
    """A section, or why there is none."""
    try:
        section(*arguments)
    except UsageError as problem:
        loading.say(str(problem))


# --- the text ------------------------------------------------------------------------------------


def said(key: str) -> str:
    """A text of the address; of one too long for it, what the session holds."""
    kept = st.session_state.get(f"long_{key}", "") if st.query_params.get("long") else ""
    return st.query_params.get(key) or kept


def keep(key: str, value: str) -> None:
    """Put a text where `said` finds it."""
    st.session_state.pop(f"long_{key}", None)
    if len(value) > prompt.LONGEST:
        st.session_state[f"long_{key}"] = value
        st.query_params["long"] = "1"
    elif value:
        st.query_params[key] = value


def _read() -> None:
    """Take over what the boxes hold; what was asked of the text before is not asked of this one."""
    st.query_params.from_dict({k: st.query_params[k] for k in KEYS if k in st.query_params})
    keep("text", st.session_state["prompt_text"])
    keep("compare", st.session_state["prompt_other"])


def _box() -> str:
    """The text, and another to compare with."""
    st.session_state["prompt_text"] = said("text")
    st.session_state["prompt_other"] = said("compare")
    with st.form("prompt", border=False):
        st.text_area("Text", key="prompt_text", height=110, placeholder="import numpy as np")
        with st.expander("Compare with another text", expanded=bool(said("compare"))):
            st.text_area("Other text", key="prompt_other", height=80)
        st.form_submit_button("Read", type="primary", on_click=_read)
    if st.query_params.get("long"):
        long = "Texts of more than {:,} characters are not in the address: they live with this tab."
        state.show(html('<p class="quiet">{}</p>', long.format(prompt.LONGEST)))
    return said("text")


# --- what it is made of --------------------------------------------------------------------------


def _sections(page: Shown) -> None:
    by = st.query_params.get("by", "")
    if by not in prompt.COLUMNS:
        by = "value" if page.reading.table.usual is None else "usual"
    token, shown = _token(page), st.query_params.get("show", "")
    left, right = st.columns([3, 2], gap="medium")
    with left:
        _tokens(page, token)
        _told(_features, page, token, by, shown)
    with right:
        _traces(page, shown)
        _told(next_token.panel, page)
    if other := said("compare"):
        _told(_compared, page, other, by)
    steer.panel(page, shown)
    _told(_exact, page)
    state.show(draw.title("Error", "of each token, split into linear and nonlinear"))
    _told(_errors, page)
    saving.offer(lambda: _files(page, by))


def _token(page: Shown) -> int | None:
    """The token that the address chooses, by its position."""
    word = st.query_params.get("token", "")
    # Of more digits than this no text has a token.
    place = int(word) if word.isascii() and word.isdigit() and len(word) < 7 else 0
    return place if 1 <= place < len(page.texts) else None


def _tokens(page: Shown, token: int | None) -> None:
    """The text; a click on a token chooses it."""
    loss, n = page.reading.read.loss, len(page.texts) - 1
    if loss is None:
        values, about = None, f"{n} tokens; click one for its features"
    else:
        values, mean = [0.0, *loss.tolist()], draw.number(float(loss.mean()))
        about = f"{n}, shaded by the loss of predicting them, {mean} nats on average; click one"
    strip = prompt.strip(page.reading.prompt, values, token, "loss")
    state.show(draw.title("Tokens", about) + strip)


def _features(page: Shown, token: int | None, by: Any, shown: str) -> None:
    """Those of the token chosen, else of all."""
    from saelab.analysis import prompts

    rows = page.reading.table
    if token is None:
        order = prompts.strongest(rows, by, ROWS)
        title = draw.title("Strongest features", "of all tokens")
    else:
        order = prompts.on_token(rows, token, by, 2 * ROWS)
        every = draw.change("prompt", "all tokens", "step", token="")
        of = draw.token(page.texts[token] or "▫")
        title = html('<div class="head"><h2>Features of {}</h2>{}</div>', of, every)
    known = page.known(rows.feature[order].tolist())
    table = prompt.features(rows, order.tolist(), page.run, page.reading.prompt, known, shown)
    state.show(title + prompt.orders(by) + table)


def _traces(page: Shown, shown: str) -> None:
    """The text shaded by each of the features shown."""
    from saelab.analysis import prompts

    n_features = page.reading.read.sae.n_features
    words = [word for word in shown.split(",") if word.isascii() and word.isdigit()]
    features = [int(word) for word in words if len(word) < 10 and int(word) < n_features][:TRACES]
    if not features:
        quiet = html('<p class="quiet">A click on a feature\'s <i>trace</i> shows it here.</p>')
        state.show(draw.title("Traces") + quiet)
        return
    values = prompts.traces(page.reading.table, features, len(page.texts)).tolist()
    state.show(prompt.traces(page.reading.prompt, features, values, page.run, shown))


def _compared(page: Shown, other: str, by: Any) -> None:
    """Features of which one of the two texts has more."""
    both, first = asking.comparison(page.key, page.text, other, by, page.estimate)
    texts = (page.texts, asking.reading(page.key, other).prompt.texts)
    known = page.known(both.feature[:ROWS].tolist())
    state.show(prompt.comparison(both, first, texts, by, page.run, known, ROWS))


def _exact(page: Shown) -> None:
    """The largest estimates beside ablations, by a click."""
    if st.query_params.get("exact") != "1":
        ask = draw.change("prompt", "ablate the 10 largest", "step", exact="1")
        title = html("<h2>Estimate <small>{}</small></h2>", "is the estimated effect right?")
        state.show(html('<div class="head">{}{}</div>', title, ask) + prompt.by(page.estimate))
        return
    with st.spinner("ablating"):
        done = asking.exact(page.key, page.text, page.estimate)
    exact = prompt.exact(page.reading.table, done, page.run, page.reading.prompt)
    state.show(exact + prompt.by(page.estimate))


def _files(page: Shown, by: Any) -> list[saving.File]:
    """What of the page may be saved."""
    try:
        split = asking.error_split(page.key, page.text)
    except UsageError:  # without a map of the errors; the page says so
        split = None
    known = page.known(page.reading.table.feature.tolist())

    def whole() -> str:
        return prompt_files.one(page.run, page.reading, split, known, by)

    def made() -> list[prompt_files.Table]:
        return prompt_files.tables(page.reading, split)

    files = saving.tables(page.run, made, prompt_files.NAMES)
    return [saving.File("prompt.html", whole), *files]


def _errors(page: Shown) -> None:
    """What the SAE misses of each token."""
    state.show(prompt.errors(page.reading.prompt, asking.error_split(page.key, page.text)))
