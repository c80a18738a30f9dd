"""One feature: where it fires, how strongly, what it writes, what is near it."""

import streamlit as st

from saelab.errors import UsageError
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example, Feature

from .. import charts, draw, load, state

QUIET = {"displayModeBar": False}
LOGITS = "suppressed, promoted; logits per unit activation, before the norm's scale"


def show() -> None:
    """The page."""
    name, folder = state.run()
    index = state.index(name, folder)
    feature, examples = _wanted(index)
    summary = index.summary
    head = _head(name, index, feature.row.feature)
    state.html(head + draw.header(feature, summary["n_tokens"], summary["signed"]))
    if examples:
        contexts, facts = st.columns([5, 3], gap="medium")
        with contexts:
            state.html(draw.bands(examples, abs(feature.row.max)))
    else:
        facts, _ = st.columns([3, 5])
    with facts:
        _logits(feature)
        _activations(feature)
        neighbours = draw.neighbours(feature.neighbours, name)
        state.html(f"<h2>Nearest features <small>cosine of decoder rows</small></h2>{neighbours}")


def _wanted(index: FeatureIndex) -> tuple[Feature, list[Example]]:
    """The feature that the address names, and its examples."""
    wanted = state.query("feature", "0")
    try:
        return load.feature(index, int(wanted))
    except (UsageError, ValueError):
        state.stop(
            f"No feature <code>{draw.text(wanted)}</code>: "
            f"this SAE has features 0 to {index.n_features - 1:,}."
        )


def _head(name: str, index: FeatureIndex, number: int) -> str:
    """The feature's number, links to the ones before and after it, and where it was read."""
    before = (number - 1) % index.n_features
    after = (number + 1) % index.n_features
    previous = draw.link("feature", "← previous", "step prev", run=name, feature=before)
    following = draw.link("feature", "next →", "step next", run=name, feature=after)
    place = f"{draw.text(name)} · {draw.text(index.summary['hook'])}"
    return (
        f'<div class="head"><h1>Feature {number}</h1>{previous}{following}'
        f'<span class="quiet">{place}</span></div>'
    )


def _logits(feature: Feature) -> None:
    if not feature.promoted:
        return
    state.html(f"<h2>Output tokens <small>{LOGITS}</small></h2>")
    chart = charts.logits(feature.promoted, feature.suppressed)
    st.plotly_chart(chart, config=QUIET, key="logits")


def _activations(feature: Feature) -> None:
    if not feature.histogram:
        return
    state.html("<h2>Activations <small>over firing tokens</small></h2>")
    st.plotly_chart(charts.histogram(feature.histogram), config=QUIET, key="histogram")
    by_total = draw.strong_tokens(feature.by_total, "total")
    state.html(f"<h2>Strongest tokens <small>by total activation</small></h2>{by_total}")
    by_mean = draw.strong_tokens(feature.by_mean, "mean")
    state.html(f"<h2>Strongest tokens <small>by mean over occurrences</small></h2>{by_mean}")
