"""From what an index says to HTML. Every text is escaped here, links carry their page and query,
and nothing imports Streamlit.

A link has `data-page` and `href="/page?query"`: the app follows it without a reload, a new tab
opens it by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from saelab.features.records import Example, Feature, Match, Neighbour, Token
from saelab.features.search import AFTER, BEFORE

POSITIVE, NEGATIVE = "242, 139, 32", "66, 121, 214"
GLYPHS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
BLANK = {" ": "·"}


def style() -> str:
    """The pages' style sheet, for showing these pieces elsewhere."""
    return (Path(__file__).parent / "style.css").read_text()


def _marks(glyphs: dict[str, str]) -> dict[int, str]:
    marks = {character: escape(character, quote=True) for character in "&<>\"'"}
    marks |= {character: f'<i class="ws">{glyph}</i>' for character, glyph in glyphs.items()}
    return str.maketrans(marks)


MARKS, ALL_MARKS = _marks(GLYPHS), _marks(GLYPHS | BLANK)


def text(value: str, spaces: bool = False) -> str:
    """Escaped text with visible line breaks and tabs; `spaces` shows blanks too, for a token that
    stands alone."""
    return value.translate(ALL_MARKS if spaces else MARKS)


def token(value: str) -> str:
    """A token by itself, blanks visible."""
    return f'<span class="tok">{text(value, spaces=True)}</span>'


def tokens(values: Iterable[str]) -> str:
    """Tokens side by side."""
    return " ".join(map(token, values))


def link(page: str, body: str, classes: str = "", /, **query: Any) -> str:
    """A link to a page with a query; body is HTML."""
    path = "/" if page == "overview" else f"/{page}"
    href = escape(f"{path}?{urlencode(query)}", quote=True)
    return f'<a class="{classes}" data-page="{page}" href="{href}">{body}</a>'


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
    return f'<b>{number(metric["value"])}</b> <span class="quiet">{number(metric["low"])} to {number(metric["high"])}</span>'


def percent(value: float) -> str:
    """A share as per cent, two significant digits below ten per cent."""
    return f"{100 * value:.1f}%" if value >= 0.1 else f"{number(100 * value, 2)}%"


def shade(activation: float, largest: float) -> str:
    """The background of a token: orange for positive, blue for negative activations, stronger with
    |activation|."""
    strength = min(1.0, abs(activation) / largest) if largest else 0.0
    return f"background-color: rgba({POSITIVE if activation > 0 else NEGATIVE}, {0.12 + 0.78 * strength:.2f})"


def shaded(example: Example, first: int, last: int, largest: float) -> str:
    """Positions first to last of an example: firing tokens shaded with their activation as a
    tooltip, the peak outlined."""
    parts = []
    for position in range(first, last):
        body, activation = text(example.texts[position]), example.activations[position]
        if activation == 0:
            parts.append(body)
            continue
        classes = "act peak" if position == example.position else "act"
        parts.append(
            f'<span class="{classes}" style="{shade(activation, largest)}" title="{number(activation)}">{body}</span>'
        )
    return "".join(parts)


def example(shown: Example, largest: float) -> str:
    """One context: its peak's surroundings, which open to the whole."""
    first, last = max(1, shown.position - BEFORE), min(len(shown.texts), shown.position + AFTER + 1)
    snippet = shaded(shown, first, last, largest)
    whole = shaded(shown, 1, len(shown.texts), largest)
    head = f'<span class="peak-value">{number(shown.peak)}</span><span class="snippet">{snippet}</span>'
    where = f'<div class="where">{text(shown.document)} · context {shown.context}, position {shown.position}</div>'
    return f'<details class="example"><summary>{head}</summary><div class="whole">{whole}{where}</div></details>'


def examples(shown: Sequence[Example], largest: float) -> str:
    """Contexts one below the other."""
    return f'<div class="examples">{"".join(example(one, largest) for one in shown)}</div>'


def bands(shown: Sequence[Example], largest: float) -> str:
    """Top contexts, then those of every quantile band, strongest band first."""
    parts = []
    top = [one for one in shown if one.band < 0]
    if top:
        parts.append(
            f"<h2>Top contexts <small>by peak activation; click one to see all of it</small></h2>{examples(top, largest)}"
        )
    n_bands = 1 + max((one.band for one in shown), default=-1)
    for band in reversed(range(n_bands)):
        members = [one for one in shown if one.band == band]
        if members:
            span = f"{100 * band // n_bands} to {100 * (band + 1) // n_bands}"
            heading = f"<h2>Percentiles {span} <small>of its contexts by peak, sampled</small></h2>"
            parts.append(heading + examples(members, largest))
    return "".join(parts)


def stats(pairs: Iterable[tuple[str, str, str]]) -> str:
    """A strip of (name, value as HTML, explanation)."""
    cells = (
        f'<div title="{escape(why)}"><dt>{escape(name)}</dt><dd>{value}</dd></div>'
        for name, value, why in pairs
    )
    return f'<dl class="stats">{"".join(cells)}</dl>'


def matches(found: Sequence[Match]) -> str:
    """Per other SAE, whether it has this feature."""
    parts = []
    for match in found:
        verdict, classes = ("also found by", "yes") if match.found else ("not found by", "no")
        detail = f"feature {match.feature} there, cosine {match.cosine:.2f}".replace("-", "−")
        null = f"random directions reach {match.null:.2f}"
        parts.append(
            f'<p class="match {classes}"><b>{verdict} {text(match.name)}</b> '
            f"<span>{detail}; {null}; found means at least {match.threshold:g}</span></p>"
        )
    return "".join(parts)


def header(found: Feature, n_tokens: int, signed: bool) -> str:
    """The feature page's first lines: how often and how strongly it fires, and whether other SAEs
    found it."""
    row = found.row
    if not row.fired:
        return f'<p class="empty">This feature did not fire on {n_tokens:,} tokens.</p>{matches(found.matches)}'
    pairs = [
        ("density", percent(row.density), f"fired on {row.fired:,} of {n_tokens:,} tokens"),
        ("firings", f"{row.fired:,}", "tokens on which the activation is not 0"),
        (
            "mean",
            number(row.mean),
            "mean |activation| over firing tokens"
            if signed
            else "mean activation over firing tokens",
        ),
        ("max", number(row.max), "activation of largest size"),
    ]
    if signed:
        pairs.append(("positive", percent(row.positive), "share of firings above 0"))
    return stats(pairs) + matches(found.matches)


def strong_tokens(shown: Sequence[Token], by: str) -> str:
    """A small table of tokens by "total" or "mean" activation."""
    rows = (
        f'<tr><td>{token(one.text)}</td><td class="n">{number(getattr(one, by))}</td>'
        f'<td class="n" title="{one.fired:,} of its {one.seen:,} occurrences">{percent(one.fired / max(one.seen, 1))}</td></tr>'
        for one in shown
    )
    head = f'<tr><th>token</th><th class="n">{by}</th><th class="n">fires</th></tr>'
    return f'<table class="grid">{head}{"".join(rows)}</table>'


def neighbours(shown: Sequence[Neighbour], run: str) -> str:
    """The nearest features, as links."""
    rows = (
        f'<tr><td class="n">{link("feature", str(one.feature), run=run, feature=one.feature)}</td>'
        f'<td class="n">{number(one.cosine, 2)}</td><td>{tokens(one.tokens[:3])}</td></tr>'
        for one in shown
    )
    head = '<tr><th class="n">feature</th><th class="n">cosine</th><th>tokens</th></tr>'
    return f'<table class="grid">{head}{"".join(rows)}</table>'
