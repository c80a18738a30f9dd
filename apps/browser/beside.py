"""What stands beside a feature's contexts, as HTML. Nothing imports Streamlit."""

from collections.abc import Sequence
from typing import Any

from saelab.features import words
from saelab.features.records import Feature, Token

from . import draw, facts
from .html import Markup, joined

TOKENS, NEAR = 10, 6  # strongest tokens, and other features, shown
LOGITS = "logit per unit of activation, before the norm's scale"


def facts_of(feature: Feature, run: str, **query: Any) -> Markup:
    """What a feature writes and how it fires; what is near it. query: what links to other features
    keep."""
    parts: list[Markup] = []
    if feature.promoted:
        parts += [draw.title("Output tokens", LOGITS)]
        parts += [facts.output_tokens(feature.promoted, feature.suppressed)]
    if feature.histogram:
        parts += [draw.title("Activations", "over its firings")]
        parts += [facts.histogram(feature.histogram)]
    if feature.by_total:
        parts += [draw.title("Strongest tokens", "by total activation")]
        parts += [facts.strong_tokens(few(feature.by_total), "total")]
    if feature.heads:
        parts += [draw.title("Heads", "of the attention output it writes")]
        parts += [facts.heads(dict(enumerate(feature.heads)))]
    if feature.hooks:
        parts += [draw.title("Hooks", "of what it writes")]
        parts += [facts.heads(dict(feature.hooks), "hook", words.HOOKS)]
    parts += [draw.title("Nearest features", "by their decoder rows")]
    parts += [facts.neighbours(feature.neighbours[:NEAR], run, **query)]
    if feature.cofiring:
        parts += [draw.title("Fires together with", "at the same positions")]
        parts += [facts.cofiring(feature.cofiring[:NEAR], run, **query)]
    return joined(parts)


def few(strongest: Sequence[Token]) -> list[Token]:
    """The first of each sign: half as many where there are both."""
    signs = {one.sign for one in strongest}
    return [
        one
        for sign in (1, -1)
        for one in [part for part in strongest if part.sign == sign][: TOKENS // len(signs)]
    ]
