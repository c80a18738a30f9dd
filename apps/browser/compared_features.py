"""The lists of features of a comparison as HTML. Nothing imports Streamlit."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from .draw import cell, grid, head, line, link, number, percent, tokens
from .html import EMPTY, Markup, html, joined

Strong = Callable[[int], Sequence[str]]  # a feature's strongest tokens


class Side(NamedTuple):
    """One of the two SAEs."""

    letter: str
    """A or B"""
    run: str
    """its name in the browser"""
    strong: Strong
    """empty where the run has no index"""


def feature(side_: Side, number_: int) -> Markup:
    """A link to a feature's page."""
    return link("feature", str(number_), run=side_.run, feature=number_)


def partners(
    document: Mapping[str, Any], by: str, rows: slice, sides: tuple[Side, Side], query: Mapping
) -> Markup:
    """Pairs side by side, most alike first."""
    columns = document["partners"][by]
    word = "cosine" if by == "matched" else "correlation"
    heads = [head(word), head("A"), head("", ""), head("B"), head("", ""), head("", "")]
    listed = zip(*(columns[name][rows] for name in ("first", "second", "value")), strict=True)
    lines = []
    for first, second, value in listed:
        pair = link("compare", "contexts", **query, pair=f"{first}-{second}")
        cells = []
        for one, number_ in zip(sides, (first, second), strict=True):
            cells += [cell(feature(one, number_)), cell(tokens(one.strong(number_)), "tokens")]
        lines.append(line(cell(number(value, 3)), *cells, cell(pair, "")))
    return grid(heads, lines, "features")


def only(document: Mapping[str, Any], which: str, rows: slice, sides: tuple[Side, Side]) -> Markup:
    """Features that one SAE alone has, those that fire most often first."""
    mine = sides[which == "second"]
    fired = document["fired"][which]
    nearest = _nearest(document, which)
    heads = [head(f"in {mine.letter}"), head("", ""), head("density"), head("most alike", "")]
    n_tokens = document["cofiring"]["tokens"]
    other = sides[which == "first"]
    lines = []
    for number_ in document["only"][which][rows]:
        partner = EMPTY
        if number_ in nearest:
            there, value, word = nearest[number_]
            partner = feature(other, there) + html(
                ' <span class="quiet">{} {}</span>', word, number(value, 2)
            )
        lines.append(
            line(
                cell(feature(mine, number_)),
                cell(tokens(mine.strong(number_)), "tokens"),
                cell(percent(fired[number_] / n_tokens)),
                cell(partner, ""),
            )
        )
    return grid(heads, lines, "features")


def _nearest(document: Mapping[str, Any], which: str) -> dict[int, tuple[int, float, str]]:
    """Partners that are not alike enough, by feature."""
    other = "second" if which == "first" else "first"
    nearest = {}
    for by, word in (("cofiring", "correlation"), ("matched", "cosine")):
        columns = document["partners"][by]
        for mine, there, value in zip(
            columns[which], columns[other], columns["value"], strict=True
        ):
            nearest[mine] = (there, value, word)
    return nearest


def split(document: Mapping[str, Any], which: str, rows: slice, sides: tuple[Side, Side]) -> Markup:
    """Features whose firings several of the other's share out among them."""
    mine, other = sides if which == "first" else sides[::-1]
    heads = [
        head(f"in {mine.letter}"),
        head("", ""),
        head("firings"),
        head(f"in {other.letter}", ""),
    ]
    lines = []
    for each in document["splitting"][which]["listed"][rows]:
        parts = []
        for part, covered in zip(each["parts"], each["covered"], strict=True):
            label = html('{}<span class="n"> {}</span>', part, percent(covered))
            parts.append(link("feature", label, "chip", run=other.run, feature=part))
        strong = cell(tokens(mine.strong(each["feature"])), "tokens")
        firings = cell(f"{each['fired']:,}")
        first = cell(feature(mine, each["feature"]))
        lines.append(line(first, strong, firings, cell(joined(parts, " "), "")))
    return grid(heads, lines, "features")
