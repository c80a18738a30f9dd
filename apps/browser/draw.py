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
from saelab.spelling import characters

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
    interval = f"{number(metric['low'])} to {number(metric['high'])}"
    return f'<b>{number(metric["value"])}</b> <span class="quiet">{interval}</span>'


def percent(value: float) -> str:
    """A share as per cent, two significant digits below ten per cent."""
    return f"{100 * value:.1f}%" if value >= 0.1 else f"{number(100 * value, 2)}%"


def cell(body: str, classes: str = "n", title: str = "", tag: str = "td") -> str:
    """A cell of a table, right-aligned unless told otherwise; body is HTML.

    >>> cell(number(0.25))
    '<td class="n">0.25</td>'
    """
    kind = f' class="{classes}"' if classes else ""
    why = f' title="{text(title)}"' if title else ""
    return f"<{tag}{kind}{why}>{body}</{tag}>"


def head(body: str, classes: str = "n", title: str = "") -> str:
    """A column's heading."""
    return cell(body, classes, title, "th")


def row(first: str, *others: str, title: str = "") -> str:
    """A row: its name on the left, numbers to the right of it."""
    return f"<tr>{cell(first, '', title)}{''.join(map(cell, others))}</tr>"


def grid(heads: Iterable[str], rows: Iterable[str], kind: str = "") -> str:
    """A table of headings and rows."""
    classes = f"grid {kind}".strip()
    body = f"<thead><tr>{''.join(heads)}</tr></thead><tbody>{''.join(rows)}</tbody>"
    return f'<table class="{classes}">{body}</table>'


def shade(activation: float, largest: float) -> str:
    """The background of a token: orange for positive, blue for negative activations, stronger with
    |activation|."""
    strength = min(1.0, abs(activation) / largest) if largest else 0.0
    color = POSITIVE if activation > 0 else NEGATIVE
    return f"background-color: rgba({color}, {0.12 + 0.78 * strength:.2f})"


def shaded(example: Example, first: int, last: int, largest: float) -> str:
    """Positions first to last of an example: firing tokens shaded with their activation as a
    tooltip, the peak outlined."""
    parts = []
    for group in characters(example.texts, first, last):
        body = text("".join(example.texts[position] for position in group))
        strongest = max(group, key=lambda position: abs(example.activations[position]))
        activation = example.activations[strongest]
        if activation == 0:
            parts.append(body)
            continue
        classes = "act peak" if example.position in group else "act"
        color = shade(activation, largest)
        values = ", ".join(number(example.activations[position]) for position in group)
        parts.append(f'<span class="{classes}" style="{color}" title="{values}">{body}</span>')
    return "".join(parts)


def example(context: Example, largest: float) -> str:
    """One context: its peak's surroundings, which open to the whole."""
    n_positions, peak = len(context.texts), context.position
    first, last = max(1, peak - BEFORE), min(n_positions, peak + AFTER + 1)
    snippet = f'<span class="snippet">{shaded(context, first, last, largest)}</span>'
    value = f'<span class="peak-value">{number(context.peak)}</span>'
    place = f"{text(context.document)} · context {context.context}, position {peak}"
    whole = f'{shaded(context, 1, n_positions, largest)}<div class="where">{place}</div>'
    return (
        f'<details class="example"><summary>{value}{snippet}</summary>'
        f'<div class="whole">{whole}</div></details>'
    )


def examples(contexts: Sequence[Example], largest: float) -> str:
    """Contexts one below the other."""
    return f'<div class="examples">{"".join(example(one, largest) for one in contexts)}</div>'


def bands(contexts: Sequence[Example], largest: float) -> str:
    """Top contexts, then those of every quantile band, strongest band first."""
    parts = []
    top = [one for one in contexts if one.band < 0]
    if top:
        how = "by peak activation; click one to see all of it"
        parts.append(f"<h2>Top contexts <small>{how}</small></h2>{examples(top, largest)}")
    n_bands = 1 + max((one.band for one in contexts), default=-1)
    for band in reversed(range(n_bands)):
        members = [one for one in contexts if one.band == band]
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


VERDICTS = {
    True: ("also found by", "yes"),
    False: ("not found by", "no"),
    None: ("nearest in", "no"),  # too wide to be matched one to one
}


def matches(others: Sequence[Match]) -> str:
    """Per other SAE, whether it has this feature."""
    parts = []
    for match in others:
        verdict, classes = VERDICTS[match.found]
        nearest = f"nearest is feature {match.nearest} there, cosine {match.cosine:.2f}"
        details = [f"{nearest} (random directions reach {match.null:.2f})"]
        if match.partner is not None:
            pair = (
                f"one to one it is paired with {match.partner}, cosine {match.partner_cosine:.2f}"
            )
            details.append(f"{pair}; found means above {match.threshold:g}")
        detail = "; ".join(details).replace("-", "−")
        title = f"<b>{verdict} {text(match.name)}</b>"
        parts.append(f'<p class="match {classes}">{title} <span>{detail}</span></p>')
    return "".join(parts)


def header(feature: Feature, n_tokens: int, signed: bool) -> str:
    """The feature page's first lines: how often and how strongly it fires, and whether other SAEs
    found it."""
    row, others = feature.row, matches(feature.matches)
    if not row.fired:
        never = f"This feature did not fire on {n_tokens:,} tokens."
        return f'<p class="empty">{never}</p>{others}'
    size = "|activation|" if signed else "activation"
    pairs = [
        ("density", percent(row.density), f"fired on {row.fired:,} of {n_tokens:,} tokens"),
        ("firings", f"{row.fired:,}", "tokens on which the activation is not 0"),
        ("mean", number(row.mean), f"mean {size} over firing tokens"),
        ("max", number(row.max), "activation of largest size"),
    ]
    if signed:
        pairs.append(("positive", percent(row.positive), "share of firings above 0"))
    return stats(pairs) + others


def strong_tokens(strongest: Sequence[Token], by: str) -> str:
    """A small table of tokens by "total" or "mean" activation."""
    rows = []
    for one in strongest:
        share = percent(one.fired / max(one.seen, 1))
        often = f"{one.fired:,} of its {one.seen:,} occurrences"
        cells = [cell(token(one.text), ""), cell(number(getattr(one, by))), cell(share, "n", often)]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return grid([head("token", ""), head(by), head("fires")], rows)


def neighbours(nearest: Sequence[Neighbour], run: str) -> str:
    """The nearest features, as links."""
    rows = []
    for one in nearest:
        there = link("feature", str(one.feature), run=run, feature=one.feature)
        cells = [cell(there), cell(number(one.cosine, 2)), cell(tokens(one.tokens[:3]), "")]
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return grid([head("feature"), head("cosine"), head("tokens", "")], rows)
