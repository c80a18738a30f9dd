"""On a feature's page: what the loss does without it in its own contexts, once its model is
loaded."""

from pathlib import Path
from typing import Any

import streamlit as st

from saelab.errors import FailedRun, UsageError
from saelab.features.reader import FeatureIndex
from saelab.features.records import Example

from .. import contexts, draw, load, model, state
from ..html import html
from . import loading

N_CONTEXTS = 8  # top contexts that are run, as one batch
MEANING = (
    "change of the next token's loss, in nats, when the feature is taken out of the activation; "
    "above 0 (orange): the model predicts worse without it"
)


def section(
    name: str, folder: Path, index: FeatureIndex, feature: int, examples: list[Example]
) -> None:
    """The section, which is made once it is opened."""
    opened = state.section("Effect of ablating it on the next token's loss", "effect")
    if opened is None:
        return
    with opened:
        if there := loading.ready(name, folder):
            _result(index, feature, examples, there.bench)


def _result(index: FeatureIndex, feature: int, examples: list[Example], bench: Any) -> None:
    top = sorted(examples, key=lambda one: -abs(one.value))[:N_CONTEXTS]
    try:
        ids = [index.ids(one.context)[: len(one.texts)] for one in top]
        firing, later, shown = _measured(load.stamped(index.path), feature, top, ids, bench)
    except (FailedRun, UsageError) as error:
        state.show(html('<p class="empty">{}</p>', draw.message(str(error))))
        return
    pairs = [
        ("where it fires", draw.estimate(firing), "mean over the predictions made where it fires"),
        ("per context", draw.estimate(later), "summed over all predictions of a context"),
        (
            "random direction",
            draw.number(firing["null"]),
            "where it fires, for a random direction of the same length",
        ),
    ]
    told = html('<p class="quiet">{}; {} contexts.</p>', MEANING, len(shown))
    largest = max((abs(value) for one in shown for value in one.activations), default=0.0)
    state.show(draw.stats(pairs) + told + contexts.examples(shown, largest))


@st.cache_data(max_entries=64, show_spinner="running the model")
def _measured(
    stamp: load.Stamp, feature: int, top: list[Example], ids: list[list[int]], _bench: Any
) -> tuple[dict, dict, list[Example]]:
    """The two means, and the contexts with the changes in the activations' place: at each token
    that of the token behind it."""
    del stamp  # by which the answer is kept
    from saelab.analysis.prompts import own_contexts

    with model.alone():
        measured = own_contexts.without(_bench.model, _bench.sae, feature, ids)
    shown = []
    for one, change_T in zip(top, measured.change.tolist(), strict=True):
        n_positions = len(one.texts)
        values = [*change_T, 0.0][:n_positions]
        shown.append(one._replace(activations=values, value=sum(values)))
    return measured.firing.as_dict(), measured.later.as_dict(), shown
