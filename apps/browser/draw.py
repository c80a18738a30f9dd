"""The pieces that pages are made of, as HTML. Nothing imports Streamlit."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .addresses import change as change  # where pages look for them
from .addresses import link as link
from .html import EMPTY, Markup, escape, html, joined

GLYPHS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
BLANK = {" ": "·"}
MARKS = str.maketrans({one: html('<i class="ws">{}</i>', glyph) for one, glyph in GLYPHS.items()})
ALL_MARKS = MARKS | str.maketrans({" ": html('<i class="ws">{}</i>', BLANK[" "])})

BREAKS = re.compile(r"(\n+)")
FEW = 4  # blanks in a row that are drawn one by one are fewer
MANY = re.compile(rf"((?: {{{FEW},}}|\n{{{FEW},}}|\t{{{FEW},}}|\r{{{FEW},}}))")


def style() -> str:
    """The pages' style sheet, for showing these pieces elsewhere."""
    return (Path(__file__).parent / "style.css").read_text()


def text(value: str, spaces: bool = False, lines: bool = False) -> Markup:
    """Text with visible line breaks and tabs; `spaces` shows blanks too, for a token that stands
    alone, `lines` breaks the line after visible breaks, once after several."""
    # Glyphs are put into what is escaped already: escaping makes none of the characters they mark.
    escaped = str(escape(value))
    pieces = BREAKS.split(escaped) if lines else [escaped]
    marks = ALL_MARKS if spaces else MARKS
    marked = [piece.translate(marks) for piece in pieces]
    marked[1::2] = [f"{breaks}\n" for breaks in marked[1::2]]  # every other piece is breaks
    return Markup("".join(marked))


def message(value: str) -> Markup:
    """A sentence in which what stands between backticks is code, as errors write what to type."""
    pieces = enumerate(value.split("`"))
    return joined(html("<code>{}</code>", one) if at % 2 else text(one) for at, one in pieces)


def drawn(value: str) -> str:
    """A token as plain text, blanks visible."""
    return "".join((GLYPHS | BLANK).get(character, character) for character in value)


def token(value: str) -> Markup:
    """A token by itself, blanks visible; many of them are counted, so that they stay in their
    column."""
    parts = []
    for one in MANY.split(value):
        same = len(one) >= FEW and len(set(one)) == 1 and one[0] in GLYPHS | BLANK
        parts.append(text(one[0], spaces=True) if same else text(one, spaces=True))
        if same:
            parts.append(html('<i class="ws">×{}</i>', len(one)))
    return html('<span class="tok">{}</span>', joined(parts))


def tokens(values: Iterable[str]) -> Markup:
    """Tokens side by side."""
    return joined(map(token, values), " ")


def number(value: float | None, digits: int = 3) -> str:
    """A number to `digits` significant digits, with a true minus; a dash for None."""
    if value is None:
        return "–"
    if abs(value) >= 1000:
        return f"{value:,.0f}".replace("-", "−")
    if value and abs(value) < 1e-4:
        return f"{value:.1e}".replace("-", "−")
    return f"{value:#.{digits}g}".rstrip(".").replace("-", "−")


def estimate(metric: Mapping[str, Any]) -> str:
    """A metric ({value, low, high}) with its interval, where it has one."""
    if metric["value"] is None or metric["low"] is None:
        return number(metric["value"])
    interval = f"{number(metric['low'])} to {number(metric['high'])}"
    return html('<b>{}</b> <span class="quiet">{}</span>', number(metric["value"]), interval)


def percent(value: float) -> str:
    """A share as per cent, two significant digits below ten per cent."""
    return f"{100 * value:.1f}%" if value >= 0.1 else f"{number(100 * value, 2)}%"


def cell(body: Any, classes: str = "n", title: str = "") -> Markup:
    """A cell of a table, right-aligned unless told otherwise.

    >>> cell(number(0.25))
    Markup('<td class="n">0.250</td>')
    """
    return html("<td{}>{}</td>", _attributes(classes, title), body)


def head(body: Any, classes: str = "n", title: str = "") -> Markup:
    """A column's heading; over a column of rows' names an empty cell."""
    if not body:
        return cell("", classes)
    return html('<th scope="col"{}>{}</th>', _attributes(classes, title), body)


def side(body: Any, classes: str = "", title: str = "") -> Markup:
    """A row's heading."""
    return html('<th scope="row"{}>{}</th>', _attributes(classes, title), body)


def _attributes(classes: str, title: str) -> Markup:
    kind = html(' class="{}"', classes) if classes else EMPTY
    return kind + (html(' title="{}"', text(title)) if title else EMPTY)


def row(first: Any, *others: Any, title: str = "") -> Markup:
    """A row: its name on the left, numbers to the right of it."""
    return line(side(first, "", title), *map(cell, others))


def line(*cells: Markup) -> Markup:
    """Cells as a row."""
    return html("<tr>{}</tr>", joined(cells))


def grid(heads: Iterable[Markup], rows: Iterable[Markup], kind: str = "") -> Markup:
    """A table of headings and rows."""
    classes = f"grid {kind}".strip()
    top = joined(heads)
    top = html("<thead><tr>{}</tr></thead>", top) if top else EMPTY
    body = html("<tbody>{}</tbody>", joined(rows))
    return html('<div class="wide"><table class="{}">{}{}</table></div>', classes, top, body)


def title(name: str, about: str = "") -> Markup:
    """A section's heading, with what it shows in small letters."""
    return html("<h2>{}{}</h2>", name, html(" <small>{}</small>", about) if about else EMPTY)


def stats(pairs: Iterable[tuple[str, str, str]]) -> Markup:
    """A strip of (name, value, explanation)."""
    cells = (
        html('<div title="{}"><dt>{}</dt><dd>{}</dd></div>', why, name, value)
        for name, value, why in pairs
    )
    return html('<dl class="stats">{}</dl>', joined(cells))
