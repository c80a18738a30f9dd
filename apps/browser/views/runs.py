"""All runs: a table of them, what the chosen cost and give, their training as it goes on, and the
places that paired intervals allow."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import streamlit as st

from saelab.errors import FailedRun
from saelab.evaluation import rows as metrics
from saelab.runs import RunFolder

from .. import draw, load, load_runs, run_charts, runs_table, standing, state
from ..html import html
from ..standing import Standing

QUIET = {"displayModeBar": False}
MOST = 8  # runs chosen where the address chooses none
PLACED = 12  # runs that are placed, at most: every two are looked up
EVERY = 2.0  # seconds between looks at runs that train


def show() -> None:
    """The page."""
    runs = load.runs()
    if not runs:
        state.stop(html("No runs here yet: <code>saelab demo</code> makes one."))
    every = {name: standing.standing(name, folder, _rows) for name, folder in runs.items()}
    chosen = _chosen(every)
    query = {key: st.query_params[key] for key in _KEPT if key in st.query_params}
    order = standing.ordered(
        list(every.values()), query.get("sort", "name"), query.get("descending") == "1"
    )
    about = html('<span class="quiet">{}</span>', "values with 95% intervals over documents")
    state.show(html('<div class="head"><h1>Runs</h1>{}</div>', about))
    state.show(runs_table.table(order, chosen, query))
    state.show(runs_table.choices(query, len(chosen), len(every)))
    picked = {name: every[name] for name in chosen}
    color = run_charts.colors(chosen)
    _pareto(picked, color)
    _training({name: runs[name] for name in chosen}, picked, color)
    _places(picked, runs, query)


_KEPT = ("chosen", "sort", "descending", "by")


def _rows(folder: Path) -> Sequence[Mapping]:
    path = RunFolder(folder).metrics
    return load_runs.tail(path).rows() if path.is_file() else []


def _chosen(every: Mapping[str, Standing]) -> list[str]:
    """The runs that the address chooses: names with commas between, * all, - none; without a
    word the first few that can be shown."""
    asked = st.query_params.get("chosen")
    if asked == "*":
        return list(every)
    if asked is not None:
        return [name for name in asked.split(",") if name in every]
    return [name for name, each in every.items() if each.report or each.training][:MOST]


def _pareto(picked: Mapping[str, Standing], color: Mapping[str, str]) -> None:
    """What the chosen cost and give."""
    left, right = st.columns(2, gap="medium")
    for column, key in ((left, "fvu"), (right, "ce_recovered")):
        points = {
            name: (each.report["l0"], each.report[key])
            for name, each in picked.items()
            if each.value("l0") is not None and each.value(key) is not None
        }
        if not points:
            continue
        metric = metrics.table()[key]
        figure = run_charts.pareto(points, metric.label, metric.better, color)
        with column:
            about = f"{metric.better} is better; dotted: no other beats these in both"
            state.show(draw.title(f"L0 and {metric.label}", about))
            st.plotly_chart(figure, config=QUIET, key=f"pareto-{key}")


def _training(
    folders: Mapping[str, Path], picked: Mapping[str, Standing], color: Mapping[str, str]
) -> None:
    """Training curves, looked at again while a run trains."""
    going = any(each.training for each in picked.values())

    @st.fragment(run_every=EVERY if going else None)
    def curves() -> None:
        rows, damaged = {}, []
        for name, folder in folders.items():
            try:
                rows[name] = _rows(folder)
            except (FailedRun, OSError) as error:
                damaged.append(str(error))
        figure = run_charts.curves(rows, color)
        if figure is not None:
            about = f"over tokens; looked at every {EVERY:g} s" if going else "over tokens"
            state.show(draw.title("Training", about))
            st.plotly_chart(figure, config=QUIET, key="several-curves")
        for told in damaged:
            state.show(html('<p class="empty">{}</p>', told))

    curves()


def _places(
    picked: Mapping[str, Standing], runs: Mapping[str, Path], query: Mapping[str, str]
) -> None:
    """A leaderboard of the chosen."""
    names = [name for name, each in picked.items() if each.report][:PLACED]
    rated = [row.key for row in metrics.headline() if row.better != "none"]
    by = query.get("by", "fvu")
    by = by if by in rated else "fvu"
    if len(names) < 2:
        return
    verdicts, over_seeds = ({}, {})
    for first, second in itertools.permutations(names, 2):
        path = RunFolder(runs[first]).compared(runs[second])
        for said, seeds in ((verdicts, False), (over_seeds, True)) if path.is_file() else ():
            if word := load_runs.verdicts(path, over_seeds=seeds).get(by):
                said[first, second] = word
    placed = standing.places(names, verdicts)
    by_seeds = {place.name: place for place in standing.places(names, over_seeds)}
    commands = _commands(names, verdicts, picked, runs)
    state.show(runs_table.leaderboard(placed, by_seeds, picked, by, query, commands))


def _commands(
    names: Sequence[str],
    verdicts: Mapping[tuple[str, str], str],
    picked: Mapping[str, Standing],
    runs: Mapping[str, Path],
) -> list[str]:
    """What to type so that every two at one place are compared."""
    commands = []
    for place in dict.fromkeys(picked[name].place for name in names):
        here = [name for name in names if picked[name].place == place]
        pairs = itertools.combinations(here, 2)
        if any((a, b) not in verdicts and (b, a) not in verdicts for a, b in pairs):
            commands.append(" ".join(["saelab compare", *(str(runs[name]) for name in here)]))
    return commands
