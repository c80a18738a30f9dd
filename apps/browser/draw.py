"""From what an index says to HTML: links carry their page and query, and nothing imports Streamlit.

A link has `data-page` and `href="/page?query"`: the app follows it without a reload, a new tab
opens it by itself.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from saelab.features.records import Example, Feature, Match, Neighbour, Token
from saelab.features.search import AFTER, BEFORE
from saelab.spelling import characters

from .html import EMPTY, Markup, escape, html, joined

POSITIVE, NEGATIVE = "242, 139, 32", "66, 121, 214"
GLYPHS = {"\n": "↵", "\t": "⇥", "\r": "␍"}
BLANK = {" ": "·"}
MARKS = str.maketrans({one: html('<i class="ws">{}</i>', glyph) for one, glyph in GLYPHS.items()})
ALL_MARKS = MARKS | str.maketrans({" ": html('<i class="ws">{}</i>', BLANK[" "])})


def style() -> str:
    """The pages' style sheet, for showing these pieces elsewhere."""
    return (Path(__file__).parent / "style.css").read_text()


def text(value: str, spaces: bool = False) -> Markup:
    """Text with visible line breaks and tabs; `spaces` shows blanks too, for a token that stands
    alone."""
    # Glyphs are put into what is escaped already: escaping makes none of the characters they mark.
    return Markup(str(escape(value)).translate(ALL_MARKS if spaces else MARKS))


def token(value: str) -> Markup:
    """A token by itself, blanks visible."""
    return html('<span class="tok">{}</span>', text(value, spaces=True))


def tokens(values: Iterable[str]) -> Markup:
    """Tokens side by side."""
    return joined(map(token, values), " ")


def link(page: str, body: str, classes: str = "", /, **query: Any) -> Markup:
    """A link to a page with a query."""
    path = "/" if page == "overview" else f"/{page}"
    href = f"{path}?{urlencode(query)}"
    return html('<a class="{}" data-page="{}" href="{}">{}</a>', classes, page, href, body)


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


def cell(body: Any, classes: str = "n", title: str = "", tag: str = "td") -> Markup:
    """A cell of a table, right-aligned unless told otherwise.

    >>> cell(number(0.25))
    Markup('<td class="n">0.250</td>')
    """
    kind = html(' class="{}"', classes) if classes else EMPTY
    why = html(' title="{}"', text(title)) if title else EMPTY
    return html("<{tag}{}{}>{}</{tag}>", kind, why, body, tag=tag)


def head(body: Any, classes: str = "n", title: str = "") -> Markup:
    """A column's heading."""
    return cell(body, classes, title, "th")


def row(first: Any, *others: Any, title: str = "") -> Markup:
    """A row: its name on the left, numbers to the right of it."""
    return line(cell(first, "", title), *map(cell, others))


def line(*cells: Markup) -> Markup:
    """Cells as a row."""
    return html("<tr>{}</tr>", joined(cells))


def grid(heads: Iterable[Markup], rows: Iterable[Markup], kind: str = "") -> Markup:
    """A table of headings and rows."""
    classes = f"grid {kind}".strip()
    body = html("<thead><tr>{}</tr></thead><tbody>{}</tbody>", joined(heads), joined(rows))
    return html('<table class="{}">{}</table>', classes, body)


def shade(activation: float, largest: float) -> str:
    """The background of a token: orange for positive, blue for negative activations, stronger with
    |activation|."""
    strength = min(1.0, abs(activation) / largest) if largest else 0.0
    color = POSITIVE if activation > 0 else NEGATIVE
    return f"background-color: rgba({color}, {0.12 + 0.78 * strength:.2f})"


def shaded(example: Example, first: int, last: int, largest: float) -> Markup:
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
        values = ", ".join(number(example.activations[position]) for position in group)
        about = (classes, shade(activation, largest), values)
        parts.append(html('<span class="{}" style="{}" title="{}">{}</span>', *about, body))
    return joined(parts)


def example(context: Example, largest: float) -> Markup:
    """One context: its peak's surroundings, which open to the whole."""
    n_positions, peak = len(context.texts), context.position
    first, last = max(1, peak - BEFORE), min(n_positions, peak + AFTER + 1)
    place = html("{} · context {}, position {}", text(context.document), context.context, peak)
    return html(
        '<details class="example"><summary><span class="peak-value">{}</span>'
        '<span class="snippet">{}</span></summary>'
        '<div class="whole">{}<div class="where">{}</div></div></details>',
        number(context.peak),
        shaded(context, first, last, largest),
        shaded(context, 1, n_positions, largest),
        place,
    )


def examples(contexts: Sequence[Example], largest: float) -> Markup:
    """Contexts one below the other."""
    return html('<div class="examples">{}</div>', joined(example(c, largest) for c in contexts))


def bands(contexts: Sequence[Example], largest: float) -> Markup:
    """Top contexts, then those of every quantile band, strongest band first."""
    parts = []
    top = [one for one in contexts if one.band < 0]
    if top:
        how = "by peak activation; click one to see all of it"
        parts += [title("Top contexts", how), examples(top, largest)]
    n_bands = 1 + max((one.band for one in contexts), default=-1)
    for band in reversed(range(n_bands)):
        members = [one for one in contexts if one.band == band]
        if members:
            span = f"{100 * band // n_bands} to {100 * (band + 1) // n_bands}"
            how = "of its contexts by peak, sampled"
            parts += [title(f"Percentiles {span}", how), examples(members, largest)]
    return joined(parts)


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


VERDICTS = {
    True: ("also found by", "yes"),
    False: ("not found by", "no"),
    None: ("nearest in", "no"),  # too wide to be matched one to one
}


def matches(others: Sequence[Match]) -> Markup:
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
        told = html("<b>{} {}</b> <span>{}</span>", verdict, text(match.name), detail)
        parts.append(html('<p class="match {}">{}</p>', classes, told))
    return joined(parts)


def header(feature: Feature, n_tokens: int, signed: bool) -> Markup:
    """The feature page's first lines: how often and how strongly it fires, and whether other SAEs
    found it."""
    row, others = feature.row, matches(feature.matches)
    if not row.fired:
        never = f"This feature did not fire on {n_tokens:,} tokens."
        return html('<p class="empty">{}</p>{}', never, others)
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


def strong_tokens(strongest: Sequence[Token], by: str) -> Markup:
    """A small table of tokens by "total" or "mean" activation."""
    rows = []
    for one in strongest:
        share = percent(one.fired / max(one.seen, 1))
        often = cell(share, "n", f"{one.fired:,} of its {one.seen:,} occurrences")
        rows.append(line(cell(token(one.text), ""), cell(number(getattr(one, by))), often))
    return grid([head("token", ""), head(by), head("fires")], rows)


def neighbours(nearest: Sequence[Neighbour], run: str) -> Markup:
    """The nearest features, as links."""
    rows = []
    for one in nearest:
        there = link("feature", str(one.feature), run=run, feature=one.feature)
        strongest = cell(tokens(one.tokens[:3]), "")
        rows.append(line(cell(there), cell(number(one.cosine, 2)), strongest))
    return grid([head("feature"), head("cosine"), head("tokens", "")], rows)
