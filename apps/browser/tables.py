"""The larger tables as HTML: features, search results, a run's report. Texts go through `draw`,
which escapes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.evaluation import rows as metrics
from saelab.features.records import Passage, Row

from .draw import cell, estimate, grid, head, link, number, percent, row, stats, text, tokens

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
) -> str:
    """The feature table; column heads are links that sort. state: the page's query (sort,
    descending, q), which links keep.

    other: the summary of the first other SAE, empty if there is none. links: whether the heads
    sort.
    """
    columns = [*COLUMNS, ("cosine", f"nearest in {text(other['name'])}")] if other else [*COLUMNS]
    if any(row.hit for row in rows):
        columns.append(("matches", "matches"))
    heads = "".join(_head(key, name, run, state, links) for key, name in columns)
    keys = {key for key, _ in columns}
    body = "".join(_row(row, run, other.get("threshold", 1.0), keys) for row in rows)
    return grid([heads], [body], "features")


def _head(key: str, name: str, run: str, state: Mapping[str, Any], links: bool) -> str:
    if not key or not links:
        return f'<th class="{"" if not key else "n"}">{name}</th>'
    active = state["sort"] == key
    arrow = (" ↓" if state["descending"] else " ↑") if active else ""
    descending = int(not state["descending"]) if active else int(key != "feature")
    sort = link("features", name + arrow, run=run, q=state["q"], sort=key, descending=descending)
    return f'<th class="n">{sort}</th>'


def _row(row: Row, run: str, threshold: float, keys: set[str]) -> str:
    page = link("feature", str(row.feature), run=run, feature=row.feature)
    strongest = tokens(row.tokens) if row.fired else "<i>did not fire</i>"
    cells = [cell(page), cell(strongest, "tokens")]
    cells += map(cell, (percent(row.density), number(row.mean), number(row.max)))
    if "cosine" in keys:
        verdict = "yes" if abs(row.partner_cosine or 0) > threshold else "no"
        cells.append(cell(f'<span class="mark {verdict}">{number(row.cosine, 2)}</span>'))
    if "matches" in keys and row.hit:
        where = ["token"] if row.hit.token else []
        where += [f"{row.hit.examples} examples"] if row.hit.examples else []
        cells.append(cell(" + ".join(where)))
    return f"<tr>{''.join(cells)}</tr>"


def passage(place: Passage, run: str) -> str:
    """A place in the corpus with the searched text marked, and links to the features at home
    there."""
    marked = set(place.matched)
    words = (
        f"<mark>{text(word)}</mark>" if at in marked else text(word)
        for at, word in enumerate(place.texts)
    )
    chips = []
    for feature, peak in place.features:
        label = f'{feature}<span class="n"> {number(peak, 2)}</span>'
        chips.append(link("feature", label, "chip", run=run, feature=feature))
    where = f'<span class="where">{text(place.document)} · context {place.context}</span>'
    return (
        f'<div class="passage"><div class="snippet">{"".join(words)}</div>'
        f"<div>{' '.join(chips)} {where}</div></div>"
    )


def pages(total: int, offset: int, size: int, run: str, state: Mapping[str, Any]) -> str:
    """Which rows are shown, of how many, and links to the pages before and after."""
    here, last = offset // size, max(0, -(-total // size) - 1)
    query = {
        "run": run,
        "q": state["q"],
        "sort": state["sort"],
        "descending": int(state["descending"]),
    }
    before = link("features", "←", "step prev", page=here - 1, **query) if here else ""
    after = link("features", "→", "step next", page=here + 1, **query) if here < last else ""
    span = (
        f"{offset + 1:,} to {min(offset + size, total):,} of {total:,} features"
        if total
        else "no features"
    )
    return f'<div class="head"><span class="quiet">{span}</span>{before}{after}</div>'


def about(run: str, sae: Mapping[str, Any]) -> str:
    """The overview's first lines: what the SAE is and what it was trained on. sae: sae.json, empty
    before training ends."""
    if not sae:
        return (
            f'<h1>{text(run)}</h1><p class="empty">No SAE here yet: training has not finished.</p>'
        )
    known, kind = sae.get("origin") or sae.get("about", {}), dict(sae["sparsify"])
    settings = " ".join(
        f"{key}={value}"
        for key, value in kind.items()
        if key != "kind" and value not in (False, None, 0.0)
    )
    cells = [
        (
            "model",
            text(str(known.get("model", {}).get("name", "–"))),
            "model whose activations it reads",
        ),
        ("hook", text(str(known.get("hook", "–"))), "hook point"),
        ("features", f"{sae['n_features']:,}", "dictionary size F"),
        ("width", f"{sae['d_model']:,}", "width D of the activations"),
        ("sparsifier", text(f"{kind['kind']} {settings}"), "inference form"),
        ("seed", text(str(known.get("seed", "–"))), "seed of the training"),
    ]
    if isinstance(known.get("tokens"), int):
        cells.append(("trained on", f"{known['tokens']:,} tokens", "training tokens"))
    return f"<h1>{text(run)}</h1>{stats(cells)}"


def report(document: Mapping[str, Any], folder: str) -> str:
    """The metrics with their 95% intervals and nulls beside the reference dictionaries' values.
    document: report.json or empty."""
    if not document:
        return f'<p class="empty">Not evaluated yet: <code>saelab eval {text(folder)}</code></p>'
    references = document.get("references", {})
    heads = [head("", ""), *map(head, ("this SAE", "null", *map(text, references)))]
    rows = []
    for metric in metrics.of(document):
        field = document[metric.key]
        others = (number(_value(known.get(metric.key))) for known in references.values())
        cells = (text(metric.label), estimate(field), number(field["null"]), *others)
        rows.append(row(*cells, title=metric.help))
    return f"<h2>Evaluation <small>{_size(document)}</small></h2>{grid(heads, rows, 'report')}"


def _size(document: Mapping[str, Any]) -> str:
    dead = document.get("dead_tokens")
    tokens = f"{document['tokens']:,} held-out tokens"
    return f"{tokens}; dead: on {dead:,} training tokens" if dead else tokens


def _value(entry: Any) -> float | None:
    return entry.get("value") if isinstance(entry, Mapping) else entry


def indexed(summary: Mapping[str, Any]) -> str:
    """What the index saw, and how many features the other SAEs found."""
    dead, n_features = summary["dead"], summary["n_features"]
    cells = [
        (
            "indexed",
            f"{summary['n_tokens']:,} tokens",
            f"{summary['n_contexts']:,} contexts of {summary['context']} positions",
        ),
        (
            "did not fire",
            f"{dead:,} of {n_features:,}",
            "features without a single firing on these tokens",
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
    return f"<h2>Features</h2>{stats(cells)}"
