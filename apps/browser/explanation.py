"""Explanations of a feature as HTML. Imports no Streamlit."""

from collections.abc import Sequence

from saelab.explaining.records import RULES, Explanation
from saelab.statistics import Estimate

from .draw import estimate, number, percent
from .html import EMPTY, Markup, html, joined

SCORE = (
    "balanced accuracy of detection on held-out tokens: half the share of the firings it tells, "
    "half the share of the other tokens it leaves alone; one half knows nothing"
)


def section(explanations: Sequence[Explanation]) -> Markup:
    """Each explanation with its score, what it is to be compared with, recall and precision; empty
    without any."""
    return joined(_one(one) for one in explanations)


def _one(one: Explanation) -> Markup:
    how = "by rules" if one.method == RULES else f"by {one.method}"
    other = html('<br><span class="words">{}</span>', one.opposite.text) if one.opposite else EMPTY
    words = html('<b class="words">{}</b> <span class="quiet">{}</span>{}', one.text, how, other)
    return html('<p class="explained">{}<br>{}</p>', words, _scores(one))


def _scores(one: Explanation) -> Markup:
    if one.score.value is None:
        return html('<span class="quiet">not scored: it does not fire on held-out tokens</span>')
    parts = [html('<span title="{}">detection {}</span>', SCORE, estimate(one.score.as_dict()))]
    parts += _beside("other features' explanations", one.score.null)
    if one.kind:
        parts += _beside("best single token", one.token.value)
    if one.recall is not None:
        parts.append(html('<span class="quiet">tells {} of its firings</span>', _share(one.recall)))
    if one.precision is not None:
        right = html('<span class="quiet">right {} of the time</span>', _share(one.precision))
        parts.append(right)
    return joined(parts, " · ")


def _beside(name: str, value: float | None) -> list[Markup]:
    return [] if value is None else [html('<span class="quiet">{} {}</span>', name, number(value))]


def _share(value: float) -> str:
    return percent(value) if value else "none"


def short(one: Explanation | None) -> tuple[str, Estimate]:
    """What a list says of a feature: the words, and the score."""
    return (one.text, one.score) if one else ("", Estimate(None))
