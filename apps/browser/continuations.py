"""A text continued with features edited, beside the original and its controls, as HTML."""

from typing import TYPE_CHECKING, Any

from . import draw
from .html import EMPTY, Markup, joined

if TYPE_CHECKING:
    from saelab.prompting import Steering


def continuations(steered: "Steering", read: Any, said: str) -> Markup:
    """The original, the steered text, and both kinds of control. read: from token ids to text."""
    beside = steered.beside
    rows = [("original", beside.original), (f"steered: {said}", beside.steered)]
    rows += [(f"random direction {i}", one) for i, one in enumerate(beside.random, 1)]
    for features_E, one in zip(steered.others, beside.others, strict=True):
        rows.append((f"along feature {', '.join(map(str, features_E))}", one))
    parts = []
    for name, samples in rows:
        written = joined((draw.text(read(ids), lines=True) for ids in samples.tolist()), " ⏐ ")
        parts.append(draw.line(draw.side(name), draw.cell(written, "written")))
    return draw.grid([], parts, "continuations") + _losses(steered)


def _losses(steered: "Steering") -> Markup:
    loss = steered.loss
    if loss is None:
        return EMPTY
    about = (
        f"change in nats per token on {loss.n_predictions:,} held-out tokens of "
        f"{loss.n_documents} documents; {draw.number(loss.clean.value)} as it is"
    )
    rows = [
        draw.line(draw.side(name), draw.cell(draw.estimate(change.as_dict())))
        for name, change in loss.changes.items()
    ]
    return draw.title("Loss", about) + draw.grid([], rows, "report")
