"""One image: click a patch for its strongest features; what its pixels are labelled with."""

import streamlit as st

from saelab.features.picture import Picture

from .. import draw, load, pictures, state
from ..html import EMPTY, Markup, html, joined


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    context, patch = (_number(key) for key in ("context", "patch"))
    picture = index.picture(context)
    if picture is None:
        state.stop(html("No image {} among the examples of {}.", context, name))
    n_patches = picture.grid.rows * picture.grid.columns
    patch = min(max(patch, 0), n_patches - 1)
    kind = st.query_params.get("labels", "")
    state.titled(f"Image {context}", name)
    wide, narrow = st.columns([5, 4], gap="medium")
    with wide:
        state.show(
            joined(
                [
                    html('<div class="head"><h1>Image {}</h1>{}</div>', context, _kinds(picture)),
                    pictures.clickable(picture, patch, kind),
                    pictures.legend(picture, kind),
                ]
            )
        )
    with narrow:
        labels = load.annotated(folder, index)
        said = {number: one.label for number, one in labels.items() if one.label}
        state.show(_features(picture, patch, name, said))


def _number(key: str) -> int:
    value = st.query_params.get(key, "0")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 10 else 0


def _kinds(picture: Picture) -> Markup:
    """Links that lay the labels of a kind over the image."""
    if picture.labels is None:
        return EMPTY
    chosen = st.query_params.get("labels", "")
    choices = [("", "no labels"), *((kind, kind) for kind in picture.kinds)]
    links = [
        draw.change("picture", word, "step on" if kind == chosen else "step", labels=kind)
        for kind, word in choices
    ]
    return joined(links, " ")


def _features(picture: Picture, patch: int, run: str, said: dict[int, str]) -> Markup:
    """The strongest features of a patch."""
    row, column = divmod(patch, picture.grid.columns)
    shows = " · ".join(pictures.shown(picture, patch))
    heads = [draw.head("feature", ""), draw.head("activation"), draw.head("label", "")]
    rows = [
        draw.line(
            draw.side(draw.link("feature", str(feature), run=run, feature=feature)),
            draw.cell(draw.number(value)),
            draw.cell(said.get(feature, ""), ""),
        )
        for feature, value in picture.features[patch]
    ]
    title = draw.title(f"Patch in row {row + 1}, column {column + 1}", shows)
    return title + draw.grid(heads, rows)
