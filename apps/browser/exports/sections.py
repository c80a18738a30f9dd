"""A feature as a part of a page: what the app's page of it shows, drawn by the same functions."""

from saelab.explaining import store
from saelab.features.records import Feature

from .. import contexts, draw, explanation, facts
from ..html import EMPTY, Markup, html, joined
from .subject import Subject

LOGITS = "logit per unit of activation, before the norm's scale"


def feature(subject: Subject, number: int) -> Markup:
    """One feature: label, note, explanations, contexts, output tokens, activations, neighbours."""
    index = subject.reader
    known, examples = index.feature(number), index.examples(number)
    summary = index.summary
    head = _head(subject, number) + facts.header(known, summary["n_tokens"], summary["signed"])
    shown = contexts.bands(examples, abs(known.row.max))
    beside = _facts(known, subject.name)
    columns = html('<div class="columns"><div>{}</div><div>{}</div></div>', shown, beside)
    return html('<article id="feature-{}">{}{}</article>', number, head, columns)


def _head(subject: Subject, number: int) -> Markup:
    said = subject.annotation(number)
    label = html(' <span class="label">{}</span>', draw.text(said.label)) if said.label else EMPTY
    star = html(' <span class="star" title="starred">★</span>') if said.starred else EMPTY
    names = ", ".join(said.lists)
    lists = html(' <span class="quiet">on {}</span>', names) if names else EMPTY
    note = html('<div class="note">{}</div>', said.note) if said.note else EMPTY
    words = explanation.section(store.of_feature(subject.folder, number))
    line = html(
        '<div class="head"><h1>Feature {}{}{}</h1><span class="quiet">{} · {}</span>{}</div>',
        *(number, label, star, subject.name, subject.reader.summary["hook"], lists),
    )
    return joined([line, note, words])


def _facts(known: Feature, run: str) -> Markup:
    """What stands beside the contexts."""
    parts: list[Markup] = []
    if known.promoted:
        outputs = facts.output_tokens(known.promoted, known.suppressed)
        parts += [draw.title("Output tokens", LOGITS), outputs]
    if known.histogram:
        drawn = facts.histogram(known.histogram)
        parts += [draw.title("Activations", "over firing tokens"), drawn]
        total = facts.strong_tokens(known.by_total, "total")
        mean = facts.strong_tokens(known.by_mean, "mean")
        parts += [draw.title("Strongest tokens", "by total activation"), total]
        parts += [draw.title("Strongest tokens", "by mean over occurrences"), mean]
    near = facts.neighbours(known.neighbours, run)
    parts += [draw.title("Nearest features", "cosine of decoder rows"), near]
    return joined(parts)
