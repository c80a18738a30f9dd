"""Chosen features in one file: with labels, notes and explanations, to read and to print."""

from collections.abc import Mapping, Sequence
from typing import Any

from .. import addresses, draw
from ..html import Markup, html
from . import sections
from .document import page
from .subject import Subject


def one(subject: Subject, number: int) -> str:
    """A feature as one self-contained HTML file."""
    return several(subject, [number], f"{subject.name}: feature {number}", contents=False)


def several(
    subject: Subject, features: Sequence[int], title: str = "", contents: bool = True
) -> str:
    """Features one below the other, with a table of contents, as one self-contained HTML file."""
    known = set(features)

    def address(name: str, query: Mapping[str, Any]) -> str | None:
        there = name == "feature" and query.get("feature") in known
        return f"#feature-{query['feature']}" if there else None

    title = title or f"{subject.name}: a report of {len(features)} features"
    with addresses.addressed(address):
        pieces = [sections.feature(subject, number) for number in features]
    return page(title, [_contents(subject, features, title), *pieces] if contents else pieces)


def _contents(subject: Subject, features: Sequence[int], title: str) -> Markup:
    rows = []
    for number in features:
        said, explained = subject.annotation(number), subject.explanations.get(number)
        link = html('<a href="#feature-{}">{}</a>', number, number)
        cells = (draw.cell(link), draw.cell(draw.text(said.label), ""))
        words = draw.cell(draw.text(explained.text if explained else ""), "")
        score = explained and explained.score.value
        rows.append(draw.line(*cells, words, draw.cell(draw.number(score, 2))))
    heads = [draw.head("feature"), draw.head("label", "")]
    heads += [draw.head("explanation", ""), draw.head("detection")]
    summary = subject.reader.summary
    about = html(
        '<h1>{}</h1><p class="quiet">{} · {:,} features, indexed on {:,} tokens</p>',
        *(title, summary["hook"], summary["n_features"], summary["n_tokens"]),
    )
    return about + draw.grid(heads, rows)
