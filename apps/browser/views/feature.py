"""One feature: where it fires, how strongly, what it writes, what is near it."""

import streamlit as st

from apps.browser import charts, draw, load, state
from saelab.errors import UsageError

name, folder = state.run()
opened = state.index(name, folder)
wanted = state.query("feature", "0")
try:
    found, examples = load.feature(opened, int(wanted))
except (UsageError, ValueError):
    state.stop(
        f"No feature <code>{draw.text(wanted)}</code>: this SAE has features 0 to {opened.n_features - 1:,}."
    )
number, last = found.row.feature, opened.n_features - 1
step = [
    draw.link("feature", "← previous", "step prev", run=name, feature=(number - 1) % (last + 1)),
    draw.link("feature", "next →", "step next", run=name, feature=(number + 1) % (last + 1)),
]
summary = opened.summary
place = f'<span class="quiet">{draw.text(name)} · {draw.text(summary["hook"])}</span>'
state.html(
    f'<div class="head"><h1>Feature {number}</h1>{"".join(step)}{place}</div>'
    + draw.header(found, summary["n_tokens"], summary["signed"])
)
if examples:
    contexts, facts = st.columns([5, 3], gap="medium")
    with contexts:
        state.html(draw.bands(examples, abs(found.row.max)))
else:
    facts, _ = st.columns([3, 5])
with facts:
    if found.promoted:
        state.html(
            "<h2>Output tokens <small>suppressed, promoted; logits per unit activation, before the norm's scale</small></h2>"
        )
        st.plotly_chart(
            charts.logits(found.promoted, found.suppressed),
            config={"displayModeBar": False},
            key="logits",
        )
    if found.histogram:
        state.html("<h2>Activations <small>over firing tokens</small></h2>")
        st.plotly_chart(
            charts.histogram(found.histogram), config={"displayModeBar": False}, key="histogram"
        )
        state.html(
            "<h2>Strongest tokens <small>by total activation</small></h2>"
            + draw.strong_tokens(found.by_total, "total")
        )
        state.html(
            "<h2>Strongest tokens <small>by mean over occurrences</small></h2>"
            + draw.strong_tokens(found.by_mean, "mean")
        )
    state.html(
        "<h2>Nearest features <small>cosine of decoder rows</small></h2>"
        + draw.neighbours(found.neighbours, name)
    )
