"""A feature as a part of a page: what the app's page of it shows, drawn by the same functions."""

from saelab.explaining import store

from .. import beside, contexts, draw, explanation, facts
from ..html import EMPTY, Markup, html, joined
from .subject import Subject


def feature(subject: Subject, number: int) -> Markup:
    """One feature: label, note, explanations, contexts, output tokens, activations, neighbours."""
    index = subject.reader
    known, examples = index.feature(number), index.examples(number)
    summary = index.summary
    head = _head(subject, number) + facts.header(known, summary["n_tokens"], summary["signed"])
    shown = contexts.bands(examples, abs(known.row.max))
    facts_ = beside.facts_of(known, subject.name)
    columns = html('<div class="columns"><div>{}</div><div>{}</div></div>', shown, facts_)
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
