"""The larger tables as HTML: features, search results, a run's report."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab import sparsify
from saelab.evaluation import rows as metrics
from saelab.features.records import Hit, Passage, Row

from .draw import (
    cell,
    estimate,
    grid,
    head,
    line,
    link,
    number,
    percent,
    row,
    side,
    stats,
    text,
    title,
    tokens,
)
from .html import EMPTY, Markup, html, joined

COLUMNS = (
    ("feature", "feature"),
    ("", "strongest tokens"),
    ("density", "density"),
    ("mean", "mean"),
    ("max", "max"),
)


def table(
    rows: Sequence[Row],
    run: str,
    state: Mapping[str, Any],
    other: Mapping[str, Any],
    links: bool = True,
    hits: Mapping[int, Hit] | None = None,
) -> Markup:
    """The feature table; column heads are links that sort. state: the page's query (sort,
    descending, q), which links keep.

    other: the summary of the first other SAE, empty if there is none. links: whether the heads
    sort. hits: what a search found, by feature.
    """
    columns = [*COLUMNS, ("cosine", text(f"nearest in {other['name']}"))] if other else [*COLUMNS]
    if hits:
        columns.append(("matches", "matches"))
    heads = [_head(key, name, run, state, links) for key, name in columns]
    keys = {key for key, _ in columns}
    hit = (hits or {}).get
    bar = other.get("threshold", 1.0)
    body = [_row(row, run, bar, keys, hit(row.feature)) for row in rows]
    return grid(heads, body, "features")


def _head(key: str, name: str, run: str, state: Mapping[str, Any], links: bool) -> Markup:
    if not key or not links:
        return head(name, "n" if key else "")
    active = state["sort"] == key
    arrow = (" ↓" if state["descending"] else " ↑") if active else ""
    descending = int(not state["descending"]) if active else int(key != "feature")
    sort = link("features", name + arrow, run=run, q=state["q"], sort=key, descending=descending)
    return head(sort)


def _row(row: Row, run: str, threshold: float, keys: set[str], hit: Hit | None) -> Markup:
    page = link("feature", str(row.feature), run=run, feature=row.feature)
    strongest = tokens(row.tokens) if row.fired else html("<i>did not fire</i>")
    cells = [side(page, "n"), cell(strongest, "tokens")]
    cells += map(cell, (percent(row.density), number(row.mean), number(row.max)))
    if "cosine" in keys:
        verdict = "yes" if abs(row.partner_cosine or 0) > threshold else "no"
        mark = html('<span class="mark {}">{}</span>', verdict, number(row.cosine, 2))
        cells.append(cell(mark))
    if hit is not None:
        factors = f"{number(hit.selectivity)} × {number(hit.coverage)}"
        why = f"selectivity × coverage = {factors}"
        cells.append(cell(html("{} {}", hit.where, number(hit.score)), "n", why))
    return line(*cells)


def passage(place: Passage, run: str) -> Markup:
    """A place in the corpus with the searched text marked, and links to the features at home
    there."""
    marked = set(place.matched)
    words = (
        html("<mark>{}</mark>", text(word)) if at in marked else text(word)
        for at, word in enumerate(place.texts)
    )
    chips = []
    for feature, peak in place.features:
        label = html('{}<span class="n"> {}</span>', feature, number(peak, 2))
        chips.append(link("feature", label, "chip", run=run, feature=feature))
    return html(
        '<div class="passage"><div class="snippet">{}</div>'
        '<div>{} <span class="where">{} · context {}</span></div></div>',
        joined(words),
        joined(chips, " "),
        text(place.document),
        place.context,
    )


def pages(total: int, offset: int, size: int, run: str, state: Mapping[str, Any]) -> Markup:
    """Which rows are shown, of how many, and links to the pages before and after."""
    here, last = offset // size, max(0, -(-total // size) - 1)
    query = {
        "run": run,
        "q": state["q"],
        "sort": state["sort"],
        "descending": int(state["descending"]),
    }
    before = link("features", "←", "step prev", page=here - 1, **query) if here else EMPTY
    after = link("features", "→", "step next", page=here + 1, **query) if here < last else EMPTY
    span = (
        f"{offset + 1:,} to {min(offset + size, total):,} of {total:,} features"
        if total
        else "no features"
    )
    return html('<div class="head"><span class="quiet">{}</span>{}{}</div>', span, before, after)


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
    reads = ("hook", text(hook), "hook point whose activation it reads and explains")
    if target in (None, "", hook):
        return [reads]
    explains = "hook point whose activation it explains"
    return [
        ("kind", "transcoder", "it explains another activation than it reads"),
        ("reads", text(hook), "hook point whose activation it reads"),
        ("explains", text(str(target)), explains),
    ]


def outdated(names: Sequence[str], folder: str) -> Markup:
    """That results are of another SAE than the run holds now, if any are."""
    if not names:
        return html("")
    how = html("<code>saelab eval {}</code> and the like make them anew", text(folder))
    listed = text(", ".join(names))
    return html('<p class="empty">Of an earlier SAE of this run: {}; {}.</p>', listed, how)


def report(document: Mapping[str, Any], folder: str) -> Markup:
    """The metrics with their 95% intervals and nulls beside the reference dictionaries' values.
    document: report.json or empty."""
    if not document:
        how = html("Not evaluated yet: <code>saelab eval {}</code>", text(folder))
        return html('<p class="empty">{}</p>', how)
    references = document.get("references", {})
    heads = [head("", ""), *map(head, ("this SAE", "null", *map(text, references)))]
    rows = []
    for metric in metrics.of(document):
        field = document[metric.key]
        others = (number(_value(known.get(metric.key))) for known in references.values())
        cells = (text(metric.label), estimate(field), number(field["null"]), *others)
        rows.append(row(*cells, title=metric.help))
    table = title("Evaluation", _size(document)) + grid(heads, rows, "report")
    return table + _no_losses(document)


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
            "features without a single firing on the indexed tokens; of another number of tokens "
            "than `dead`, which training and evaluation count",
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
