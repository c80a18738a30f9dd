"""The list of features, and the places where a searched text stands, as HTML. Nothing imports
Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.features import words
from saelab.features.annotations import Annotation
from saelab.features.records import Hit, Passage, Row
from saelab.features.stable import Stable

from .draw import (
    cell,
    grid,
    head,
    line,
    link,
    number,
    percent,
    side,
    text,
    token,
    tokens,
)
from .html import EMPTY, Markup, html, joined
from .listing import INTEREST, MATCH, STABLE, Listing

SHOWN = 4  # strongest tokens per row
COLUMNS = {  # name in the address: heading, definition
    "feature": ("feature", "number in the dictionary"),
    INTEREST: ("interest", words.INTEREST),
    "density": ("density", words.DENSITY),
    "mean": ("mean", "mean |activation| over firing tokens"),
    "max": ("max", "activation of largest size"),
    "cosine": ("nearest", "cosine with the nearest feature of the first other SAE"),
    STABLE: ("comes again", words.STABLE),
}
FOUND_IN = {"outputs": "output token", "tokens": "token", "contexts": "context"}
FACTORS = f"{words.SCORE}; selectivity: {words.SELECTIVITY}; coverage: {words.COVERAGE}"


def table(
    rows: Sequence[Row],
    run: str,
    wanted: Listing,
    other: Mapping[str, Any],
    hits: Mapping[int, Hit],
    said: Mapping[int, Annotation],
    stable: Stable | None = None,
) -> Markup:
    """The list's rows; headings are links that sort, numbers lead to the feature and keep the list.

    other: the summary of the first other SAE, empty if there is none. hits: what a search found.
    said: the annotations. stable: in how many other seeds each comes again.
    """
    labelled = any(one.feature in said and said[one.feature].label for one in rows)
    absent = {"cosine": not other, STABLE: stable is None}
    keys = [key for key in COLUMNS if not absent.get(key)]
    heads = [_head("feature", run, wanted)]
    heads += [head("label", "")] if labelled else []
    heads += [head("found", "", FACTORS)] if hits else []
    heads += [head("strongest tokens", "")]
    heads += [_head(key, run, wanted, other.get("name", "")) for key in keys[1:]]
    body = []
    for row in rows:
        note = said.get(row.feature, Annotation(row.feature))
        cells = [side(_number(row.feature, run, wanted, note.starred), "n")]
        cells += [cell(text(note.label), "")] if labelled else []
        cells += [_hit(hits.get(row.feature))] if hits else []
        cells += _row(row, other)
        cells += [] if stable is None else [cell(percent(stable.share[row.feature]))]
        body.append(line(*cells))
    return grid(heads, body, "features")


def _number(feature: int, run: str, wanted: Listing, starred: bool) -> Markup:
    there = link("feature", str(feature), run=run, feature=feature, **wanted.query())
    star = html('<span class="star" title="starred" role="img" aria-label="starred">★ </span>')
    return (star if starred else EMPTY) + there


def _head(key: str, run: str, wanted: Listing, other: str = "") -> Markup:
    name, why = COLUMNS[key]
    name = f"{name} in {other}" if key == "cosine" else name
    active = wanted.sorted_by == key
    arrow = (" ↓" if wanted.descending else " ↑") if active else ""
    descending = not wanted.descending if active else key != "feature"
    query = wanted.changed(sort=key, descending=descending).query()
    return head(link("features", name + arrow, run=run, **query), "n", why)


def _row(row: Row, other: Mapping[str, Any]) -> list[Markup]:
    strongest = tokens(row.tokens[:SHOWN]) if row.fired else html("<i>did not fire</i>")
    numbers = (number(row.interest), percent(row.density), number(row.mean), number(row.max))
    cells = [cell(strongest, "tokens"), *map(cell, numbers)]
    if other:
        found = abs(row.partner_cosine or 0) > other["threshold"]
        mark = html(
            '<span class="mark {}">{}{}</span>',
            "yes" if found else "no",
            number(row.cosine, 2),
            " ✓" if found else "",
        )
        why = f"{'found there' if found else 'not found there'}: one to one, cosine above "
        cells.append(cell(mark, "n", f"{why}{other['threshold']:g}"))
    return cells


def _hit(hit: Hit | None) -> Markup:
    """Where a search found it, and its score."""
    if hit is None:
        return cell("", "")
    where = FOUND_IN.get(hit.where, hit.where)
    what = token(hit.text) if hit.where in ("tokens", "outputs") else EMPTY
    verb = "suppresses " if hit.where == "outputs" and hit.sign < 0 else EMPTY
    factors = f"{number(hit.selectivity, 2)} × {number(hit.coverage, 2)}"
    told = html(
        '{}{} {} <span class="interval">{} = {}</span>',
        verb,
        where,
        what,
        number(hit.score, 2),
        factors,
    )
    return cell(told, "found", f"score: {words.SCORE}")


def passage(place: Passage, run: str, wanted: Listing) -> Markup:
    """A place in the corpus with the searched text marked, and links to the features at home
    there."""
    marked = set(place.matched)
    pieces = (
        html("<mark>{}</mark>", text(word, lines=True)) if at in marked else text(word, lines=True)
        for at, word in enumerate(place.texts)
    )
    chips = []
    for feature, value in place.features:
        label = html('{}<span class="n"> {}</span>', feature, number(value, 2))
        query = {"run": run, "feature": feature, **wanted.query()}
        chips.append(link("feature", label, "chip", **query))
    return html(
        '<div class="passage"><div class="snippet">{}</div>'
        '<div>{} <span class="where">{} · context {}</span></div></div>',
        joined(pieces),
        joined(chips, " "),
        text(place.document),
        place.context,
    )


def pages(total: int, offset: int, size: int, run: str, wanted: Listing, n_all: int) -> Markup:
    """Which rows are shown, of how many, and links to the pages before and after."""
    here, last = offset // size, max(0, -(-total // size) - 1)
    query = {"run": run, **wanted.query()}
    before = link("features", "← page", "step prev", page=here - 1, **query) if here else EMPTY
    after = (
        link("features", "page →", "step next", page=here + 1, **query) if here < last else EMPTY
    )
    of_all = f" of {n_all:,}" if total < n_all else ""
    span = f"{offset + 1:,} to {min(offset + size, total):,} of {total:,} features{of_all}"
    return html(
        '<div class="head"><span class="quiet">{}</span>{}{}</div>',
        span if total else "no features",
        before,
        after,
    )


def map_words(method: str) -> str:
    """What a map shows."""
    return f"{words.MAP.get(method, '')}; draw a box to keep what lies in it"


def order(wanted: Listing) -> Markup:
    """By what a list is ordered, with the formula."""
    if wanted.sorted_by == MATCH:
        factors = f"the {words.SELECTIVITY}, times the {words.COVERAGE}"
        return html(
            '<p class="quiet">Best first, by <b title="{}">selectivity × coverage</b>: '
            '{}. Quotes keep blanks and case: <code>" for"</code>.</p>',
            FACTORS,
            factors,
        )
    name, why = COLUMNS.get(wanted.sorted_by, (wanted.sorted_by, ""))
    way = "falling" if wanted.descending else "rising"
    return html('<p class="quiet">By {} {}: {}.</p>', way, name, why)
