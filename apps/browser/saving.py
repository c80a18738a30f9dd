"""What a page shows, as files: a menu whose buttons make a file when they are pressed."""

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple

import plotly.graph_objects as go
import streamlit as st

from saelab.digests import sealed
from saelab.features.reader import FeatureIndex
from saelab.features.records import Row
from saelab.runs import RunFolder

from . import listing, load, load_lists, standing
from .exports import figures, records, report, run_figures, run_tables, subject
from .exports.records import Table


class File(NamedTuple):
    """A file that may be saved."""

    name: str
    """such as feature-7.html"""
    make: Callable[[], str]
    """its text, made when it is wanted"""


@st.fragment
def menu(page: str) -> None:
    """The button `Save` of a page, which opens to a line per table or page with its forms. A
    fragment: opening it runs nothing else again."""
    with st.container(key="saving"):
        popover = st.popover("Save", key="save", on_change="rerun")
    if not popover.open:
        return
    with popover:
        files = of_page(page)
        if not files:
            st.write("Nothing here to save.")
        for name, several in groupby(files, lambda file: file.name.rpartition(".")[0]):
            _line(name, list(several))


def _line(name: str, files: Sequence[File]) -> None:
    words, *columns = st.columns([4, 1, 1], vertical_alignment="center", gap="small")
    with words:
        st.text(name)
    for column, file in zip(columns, files, strict=False):
        kind = file.name.rpartition(".")[2].upper()
        with column:
            # `ignore`: the page stays as it is.
            st.download_button(
                kind,
                file.make,
                file.name,
                key=f"save_{file.name}",
                help=file.name,
                type="tertiary",
                on_click="ignore",
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
    """The tables of a run's documents, and the figures of its page, zoomable, each with a
    camera."""
    files = of_documents(run, folder)

    def drawn(name: str) -> str:
        with subject.opened(folder) as held:
            figure = run_figures.of(held)[name]()
        return figures.to_html(figure or go.Figure())

    if RunFolder(folder).features.is_file():
        with subject.opened(folder) as held:
            names = list(run_figures.of(held))
        files += [File(f"{name}.html", lambda name=name: drawn(name)) for name in names]
    return files


def of_documents(name: str, folder: Path) -> list[File]:
    """The tables of what verbs have written into a folder."""

    def made() -> list[Table]:
        return run_tables.of_documents(RunFolder(folder))

    return tables(name, made, [one.name for one in made()])


def of_runs(runs: Mapping[str, Path]) -> list[File]:
    """The table of all runs, with all that their reports say."""

    def made() -> list[Table]:
        every = [standing.standing(name, folder, load.curves) for name, folder in runs.items()]
        return [records.table("runs", every)]

    return tables(", ".join(runs), made, ["runs"])


def offer(files: Callable[[], Sequence[File]]) -> None:
    """Have the menu of the page that is shown offer files, which only that page can name."""
    st.session_state["offered"] = files


def forget() -> None:
    """No page offers any, until one does."""
    st.session_state.pop("offered", None)


def of_page(page: str) -> Sequence[File]:
    """What a page of the app has to save; nothing where it is of nothing that is there."""
    if offered := st.session_state.get("offered"):
        return offered()
    if page == "circuits":
        circuits = load.circuits()
        name = st.query_params.get("circuit", next(iter(circuits), ""))
        return of_documents(name, circuits[name]) if name in circuits else []
    runs = load.runs()
    if page == "runs":
        return of_runs(runs)
    name = st.query_params.get("run", "")
    if name not in runs:
        return []
    index = load.index(runs[name]) if page in ("feature", "features") else None
    number = st.query_params.get("feature", "")
    if page == "feature" and index is not None and number.isdecimal():
        return of_feature(name, runs[name], int(number))
    if page == "features" and index is not None:
        order = load_lists.listed(runs[name], index, listing.read(st.query_params)).order
        return of_rows(name, index, order.tolist())
    return of_run(name, runs[name]) if page in ("overview", "compare") else []
