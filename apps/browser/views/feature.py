"""One feature: where it fires, how strongly, what it writes, what is near it."""

import streamlit as st

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature

from .. import contexts, draw, facts, load, state
from ..html import Markup, html

LOGITS = "logit per unit of activation, before the norm's scale"


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    feature, examples = _wanted(index)
    state.titled(f"Feature {feature.row.feature}", name)
    summary = index.summary
    head = _head(name, index, feature.row.feature)
    state.show(head + facts.header(feature, summary["n_tokens"], summary["signed"]))
    if examples:
        wide, narrow = st.columns([5, 3], gap="medium")
        with wide:
            state.show(contexts.bands(examples, abs(feature.row.max)))
    else:
        narrow, _ = st.columns([3, 5])
    with narrow:
        _logits(feature)
        _activations(feature)
        neighbours = facts.neighbours(feature.neighbours, name)
        state.show(draw.title("Nearest features", "cosine of decoder rows") + neighbours)


def _wanted(index: FeatureIndex) -> tuple[Feature, list[Example]]:
    """The feature that the address names, and its examples."""
    wanted = state.query("feature", "0")
    try:
        return load.feature(index, int(wanted))
    except (UsageError, ValueError):
        there = f"this SAE has features 0 to {index.n_features - 1:,}."
        state.stop(html("No feature <code>{}</code>: {}", wanted, there))


def _head(name: str, index: FeatureIndex, number: int) -> Markup:
    """The feature's number, links to the ones before and after it, and where it was read."""
    before = (number - 1) % index.n_features
    after = (number + 1) % index.n_features
    previous = draw.link("feature", "← previous", "step prev", run=name, feature=before)
    following = draw.link("feature", "next →", "step next", run=name, feature=after)
    place = f"{name} · {index.summary['hook']}"
    return html(
        '<div class="head"><h1>Feature {}</h1>{}{}<span class="quiet">{}</span></div>',
        number,
        previous,
        following,
        place,
    )


def _logits(feature: Feature) -> None:
    if not feature.promoted:
        return
    state.show(draw.title("Output tokens", LOGITS))
    state.show(facts.output_tokens(feature.promoted, feature.suppressed))


def _activations(feature: Feature) -> None:
    if not feature.histogram:
        return
    state.show(draw.title("Activations", "over firing tokens"))
    state.show(facts.histogram(feature.histogram))
    by_total = facts.strong_tokens(feature.by_total, "total")
    state.show(draw.title("Strongest tokens", "by total activation") + by_total)
    by_mean = facts.strong_tokens(feature.by_mean, "mean")
    state.show(draw.title("Strongest tokens", "by mean over occurrences") + by_mean)
