"""Runs side by side as HTML. Nothing imports Streamlit."""

from collections.abc import Mapping, Sequence
from typing import Any

from saelab.evaluation import rows as metrics

from .draw import cell, estimate, grid, head, line, link, side, text, title
from .html import Markup, html, joined
from .standing import COLUMNS, Place, Standing

SORTS = {"name": "run", "sparsifier": "sparsifier", "width": "features"}


def table(standings: Sequence[Standing], chosen: Sequence[str], query: Mapping[str, Any]) -> Markup:
    """A row for every run: what it is, how good, and a box that chooses it; heads sort."""
    known = metrics.table()
    heads = [head("", "")]
    for key, name in (SORTS | {key: known[key].short for key in COLUMNS}).items():
        heads.append(_head(key, name, query))
    heads.append(head("", ""))
    rows = [_row(each, chosen, query) for each in standings]
    return grid(heads, rows, "runs")


def _head(key: str, name: str, query: Mapping[str, Any]) -> Markup:
    here = query.get("sort", "name") == key
    descending = query.get("descending") == "1"
    arrow = (" ↓" if descending else " ↑") if here else ""
    turned = {**query, "sort": key, "descending": int(not descending) if here else 0}
    classes = "" if key in ("name", "sparsifier") else "n"
    return head(link("runs", name + arrow, **turned), classes)


def _row(each: Standing, chosen: Sequence[str], query: Mapping[str, Any]) -> Markup:
    on = each.name in chosen
    others = [name for name in chosen if name != each.name]
    wanted = others if on else [*others, each.name]
    box = html('<span role="checkbox" aria-checked="{}" aria-label="{}">{}</span>', *_box(each, on))
    toggle = link("runs", box, "box", **{**query, "chosen": ",".join(wanted) or "-"})
    estimates = [cell(estimate(each.report[key]) if key in each.report else "–") for key in COLUMNS]
    width = "–" if each.width is None else f"{each.width:,}"
    return line(
        cell(toggle, ""),
        side(link("overview", text(each.name), run=each.name)),
        cell(text(each.sparsifier) or "–", ""),
        cell(width),
        *estimates,
        cell(html('<span class="quiet">{}</span>', each.state), ""),
    )


def _box(each: Standing, on: bool) -> tuple[str, str, str]:
    return ("true" if on else "false", f"choose {each.name}", "☑" if on else "☐")


def choices(query: Mapping[str, Any], n_chosen: int, n_runs: int) -> Markup:
    """Links that choose every run, or none."""
    every = link("runs", "all", "step", **{**query, "chosen": "*"})
    none = link("runs", "none", "step", **{**query, "chosen": "-"})
    told = f"{n_chosen} of {n_runs} chosen"
    return html('<div class="head"><span class="quiet">{}</span>{}{}</div>', told, every, none)


def leaderboard(
    placed: Sequence[Place],
    over_seeds: Mapping[str, Place],
    standings: Mapping[str, Standing],
    by: str,
    query: Mapping[str, Any],
    commands: Sequence[str],
) -> Markup:
    """The places that paired intervals allow by a metric; and those that the spread over seeds
    allows a run's configuration."""
    rated = [row for row in metrics.headline() if row.better != "none"]
    steps = joined(
        link("runs", row.label, "step on" if row.key == by else "step", **{**query, "by": row.key})
        for row in rated
    )
    metric = metrics.table()[by]
    heads = [head("place", "", "of this run, on the same documents")]
    heads += [head("over seeds", "", "of its configuration, by three seeds of each")]
    heads += [head("run", ""), head(metric.short), head("not compared with", "")]
    rows = [_place(place, over_seeds[place.name], standings[place.name], by) for place in placed]
    meaning = (
        f"{metric.label}, {metric.better} is better; places that are not told apart by paired "
        "intervals are shared; over seeds: those that other seeds of the configurations would allow"
    )
    told = [html("<code>{}</code>", command) for command in commands]
    missing = html('<p class="quiet">Not all are compared: {}</p>', joined(told, " "))
    return joined(
        [
            title("Places", meaning),
            html('<div class="head">{}</div>', steps),
            grid(heads, rows, "report"),
            missing if commands else "",
        ]
    )


def _span(place: Place) -> str:
    return str(place.best) if place.best == place.worst else f"{place.best} to {place.worst}"


def _place(place: Place, over_seeds: Place, each: Standing, by: str) -> Markup:
    value = estimate(each.report[by]) if by in each.report else "–"
    name = link("overview", text(each.name), run=each.name)
    spans = (cell(_span(place), ""), cell(_span(over_seeds), ""))
    return line(*spans, side(name), cell(value), cell(", ".join(place.unknown), ""))
