"""The tables of a run's pages, whole, as CSV and JSON files."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saelab.evaluation import rows as metrics
from saelab.features.search import AFTER, BEFORE
from saelab.files import write_json
from saelab.runs import RunFolder, read

from .. import contexts
from .records import Table, table, to_csv, to_json, within
from .subject import Subject

PARTS = {
    "tokens-by-total": "by_total",
    "tokens-by-mean": "by_mean",
    "output-tokens-promoted": "promoted",
    "output-tokens-suppressed": "suppressed",
    "nearest": "neighbours",
    "firing-together": "cofiring",
    "other-saes": "matches",
    "histograms": "histogram",
}  # fields of a feature that are tables, by the name of their file
OF_FEATURES = ("features", *PARTS, "examples", "explanations", "annotations")


def tables(subject: Subject, features: Sequence[int]) -> Iterator[Table]:
    """Every table of these features: OF_FEATURES."""
    known = [subject.reader.feature(number) for number in features]
    yield table("features", [one.row for one in known])
    for name, field in PARTS.items():
        yield _of_each(name, features, [getattr(one, field) for one in known])
    yield table("examples", _examples(subject, features))
    said = subject.explanations
    explained = [{"feature": n, **said[n]._asdict()} for n in features if n in said]
    yield table("explanations", explained)
    chosen = set(features)
    yield table("annotations", [a for n, a in subject.annotations.items() if n in chosen])


def measured(report: Mapping[str, Any]) -> Table:
    """The metrics of a report, one per row."""
    rows = metrics.of(report) if report else []
    return table("report", [{"metric": row.key, **report[row.key]} for row in rows])


def of_documents(folder: RunFolder) -> list[Table]:
    """The tables of what verbs have written into a run: its report's metrics, and all that its
    documents hold as lists."""
    report = read(folder.report)
    written = [measured(report)] if report else []
    for kind, documents in folder.documents().items():
        for number, document in enumerate(documents):
            name = f"{kind}-{number + 1}" if len(documents) > 1 else kind
            written += within(name, document)
    return written


def _of_each(name: str, features: Sequence[int], lists: Sequence[Sequence]) -> Table:
    """One table from a list of rows per feature."""
    pairs = zip(features, lists, strict=True)
    rows = [row for number, rows in pairs for row in table(name, rows, of=number).rows]
    return Table(name, rows)


def _examples(subject: Subject, features: Sequence[int]) -> Iterator[dict]:
    """The contexts as pages show them, position `first` of each at first."""
    for number in features:
        for one in subject.reader.examples(number):
            first, last = contexts.window(one, BEFORE + AFTER)
            near = {name: getattr(one, name)[first:last] for name in ("texts", "activations")}
            yield {"of": number, **one._asdict(), "first": first, **near}


def write(subject: Subject, features: Sequence[int], out: Path) -> None:
    """Write each table that has rows, as NAME.csv and NAME.json."""
    out.mkdir(parents=True, exist_ok=True)
    for one in (*tables(subject, features), *of_documents(subject.folder)):
        if one.rows:
            (out / f"{one.name}.csv").write_text(to_csv(one), encoding="utf-8")
            write_json(out / f"{one.name}.json", to_json(one, run=subject.name))
