"""What a page shows, as files: a menu whose buttons make a file when they are pressed."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import streamlit as st

from saelab.digests import sealed
from saelab.features.reader import FeatureIndex
from saelab.features.records import Row
from saelab.runs import RunFolder, read

from .exports import figures, records, report, run_figures, run_tables, subject
from .exports.records import Table

COLUMNS = 3  # buttons side by side


class File(NamedTuple):
    """A file that may be saved."""

    name: str
    """such as feature-7.html"""
    make: Callable[[], str]
    """its text, made when it is wanted"""


def menu(files: Sequence[File]) -> None:
    """The button `Save`, which opens to one per file."""
    popover = st.popover("Save", key="save", on_change="rerun")
    if not popover.open:
        return
    with popover:
        columns = st.columns(min(COLUMNS, len(files)))
        for number, file in enumerate(files):
            with columns[number % len(columns)]:
                # `ignore`: the page stays as it is.
                st.download_button(
                    file.name, file.make, file.name, key=f"save_{file.name}", on_click="ignore"
                )


def tables(run: str, made: Callable[[], Sequence[Table]], names: Sequence[str]) -> list[File]:
    """Tables as CSV and JSON. made: gives them all; names: of those that it gives."""
    files = []
    for name in names:
        # The name is bound now, not when the button is pressed.
        files.append(File(f"{name}.csv", lambda name=name: _csv(made(), name)))
        files.append(File(f"{name}.json", lambda name=name: _json(made(), name, run)))
    return files


def _one(made: Sequence[Table], name: str) -> Table:
    return next((one for one in made if one.name == name), Table(name, []))


def _csv(made: Sequence[Table], name: str) -> str:
    return records.to_csv(_one(made, name))


def _json(made: Sequence[Table], name: str, run: str) -> str:
    document = records.to_json(_one(made, name), run=run)
    return json.dumps(sealed(document), indent=1, ensure_ascii=False)


def of_feature(run: str, folder: Path, number: int) -> list[File]:
    """The page of a feature as one HTML file, and its tables."""

    def page() -> str:
        with subject.opened(folder) as held:
            return report.one(held, number)

    def made() -> list[Table]:
        with subject.opened(folder) as held:
            return list(run_tables.tables(held, [number]))

    return [File(f"feature-{number}.html", page), *tables(run, made, run_tables.OF_FEATURES)]


def of_rows(run: str, index: FeatureIndex, numbers: Sequence[int]) -> list[File]:
    """The whole list, of which a page shows a part."""

    def made() -> list[Table]:
        rows: list[Row] = index.rows(numbers)
        return [records.table("features", rows)]

    return tables(run, made, ["features"])


def of_run(run: str, folder: Path) -> list[File]:
    """The report's table, and the figures of a run's page, zoomable, each with a camera."""
    report_ = read(RunFolder(folder).report)
    files = tables(run, lambda: [run_tables.measured(report_)], ["report"] if report_ else [])

    def drawn(name: str) -> str:
        with subject.opened(folder) as held:
            return figures.to_html(run_figures.of(held)[name])

    if RunFolder(folder).features.is_file():
        with subject.opened(folder) as held:
            names = list(run_figures.of(held))
        files += [File(f"{name}.html", lambda name=name: drawn(name)) for name in names]
    return files
