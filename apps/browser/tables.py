"""A run's overview as HTML: what it is, its report, its index."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab import joint, sparsify
from saelab.evaluation import rows as metrics
from saelab.evaluation.separation import not_separated
from saelab.features import words
from saelab.origin import part_of

from . import label_tables, suite_tables
from .draw import (
    estimate,
    grid,
    head,
    number,
    percent,
    row,
    stats,
    text,
    title,
)
from .html import EMPTY, Markup, html


def about(run: str, sae: Mapping[str, Any]) -> Markup:
    """The overview's first lines: what the SAE is and what it was trained on. sae: sae.json, empty
    before training ends."""
    if not sae:
        missing = "No SAE here yet: training has not finished."
        return html('<h1>{}</h1><p class="empty">{}</p>', text(run), missing)
    known = sae.get("origin") or sae.get("about", {})
    cells = [
        (
            "model",
            text(str(known.get("model", {}).get("name", "–"))),
            "model whose activations it reads",
        ),
        *place(known),
        ("features", f"{sae['n_features']:,}", "dictionary size F"),
        ("width", f"{sae['d_model']:,}", "width D of the activations"),
        ("sparsifier", text(sparsify.of_header(sae)), "how it chooses what fires; k: per token"),
        ("seed", text(str(known.get("seed", "–"))), "seed of the training"),
    ]
    if isinstance(known.get("tokens"), int):
        cells.append(("trained on", f"{known['tokens']:,} tokens", "training tokens"))
    return html("<h1>{}</h1>{}", text(run), stats(cells))


def place(origin: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Where an SAE reads, and what it explains where that is another place: then it is a
    transcoder."""
    hook, target = origin.get("hook") or "–", origin.get("target")
    reads = ("hook", hook, "hook point whose activation it reads and explains")
    if target in (None, "", hook):
        return [reads]
    explains = "hook point whose activation it explains"
    if kind := part_of(origin.get("more", {})):
        writes = "outputs that its features write to; those of all layers together explain them"
        return [
            ("kind", kind, "its features explain no output alone"),
            ("reads", hook, "hook point whose activation it reads"),
            ("writes to", ", ".join(str(target).split(joint.SIGN)), writes),
        ]
    return [
        ("kind", "transcoder", "it explains another activation than it reads"),
        ("reads", hook, "hook point whose activation it reads"),
        ("explains", str(target), explains),
    ]


def outdated(names: Sequence[str], folder: str) -> Markup:
    """That results are of another SAE than the run holds now, if any are."""
    if not names:
        return html("")
    how = html("<code>saelab eval {}</code> and the like make them anew", text(folder))
    listed = text(", ".join(names))
    return html('<p class="empty">Of an earlier SAE of this run: {}; {}.</p>', listed, how)


def report(document: Mapping[str, Any], folder: str) -> Markup:
    """The metrics with their 95% intervals and nulls beside the values of reference dictionaries
    and controls; those that do not tell the SAE from a control are marked. document: report.json or
    empty."""
    if not document:
        how = html("Not evaluated yet: <code>saelab eval {}</code>", text(folder))
        return html('<p class="empty">{}</p>', how)
    references = document.get("references", {}) | document.get("controls", {})
    alike = not_separated(document)
    heads = [head("", ""), *map(head, ("this SAE", "null", *map(text, references)))]
    rows = []
    for metric in metrics.of(document):
        field = document[metric.key]
        others = (number(_value(known.get(metric.key))) for known in references.values())
        label, why = text(metric.label), metric.help
        if names := alike.get(metric.key):
            label = html('{} <b class="mark no">not separated</b>', label)
            why = f"{why}; does not tell it from: {', '.join(names)}"
        cells = (label, estimate(field), number(field["null"]), *others)
        rows.append(row(*cells, title=why))
    table = title("Evaluation", _size(document)) + grid(heads, rows, "report")
    beside = suite_tables.suite(document) + label_tables.labelled(document)
    return table + _no_losses(document) + beside


def _no_losses(document: Mapping[str, Any]) -> Markup:
    if "no_losses" not in document:
        return EMPTY
    return html('<p class="quiet">No losses of the model: {}</p>', document["no_losses"])


def _size(document: Mapping[str, Any]) -> str:
    dead = document.get("dead_tokens")
    tokens = f"{document['tokens']:,} held-out tokens"
    return f"{tokens}; dead: on {dead:,} training tokens" if dead else tokens


def _value(entry: Any) -> float | None:
    return entry.get("value") if isinstance(entry, Mapping) else entry


def indexed(summary: Mapping[str, Any]) -> Markup:
    """What the index saw, and how many features the other SAEs found."""
    unseen, n_features = summary["unseen"], summary["n_features"]
    cells = [
        (
            "indexed",
            f"{summary['n_tokens']:,} tokens",
            f"{summary['n_contexts']:,} contexts of {summary['context']} positions",
        ),
        (
            "silent",
            f"{unseen:,} of {n_features:,}",
            f"{words.UNSEEN}; dead, {words.DEAD}",
        ),
    ]
    for other in summary["others"]:
        if other["share"] is not None:
            why = f"live features paired one to one at a cosine above {other['threshold']:g}"
            share = f"{percent(other['share'])} of live features"
            cells.append((f"also found by {other['name']}", share, why))
        median = f"median cosine {other['median']:.2f} (random {other['null']:.2f})"
        why = "of live features with the nearest one there, which several may share"
        cells.append((f"nearest in {other['name']}", median, why))
    return title("Features") + stats(cells)
