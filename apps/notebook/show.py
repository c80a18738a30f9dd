"""`saelab.show`: texts, features and runs as the browser draws them.

Shapes: T tokens.
"""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from saelab.errors import UsageError
from saelab.evaluation import rows
from saelab.runs import read

from ..browser import charts, contexts
from ..browser.html import html, joined
from .opened import Run, open
from .shown import Figure, Shown

__all__ = ["dashboard", "pareto", "tokens"]


def tokens(text: "str | Sequence[str] | Any", values: Any, largest: float | None = None) -> Shown:
    """Tokens shaded by numbers: orange above 0, blue below, stronger with their size.

    text: the tokens, or a text of which every character is one, or what `saelab.prompting.read`
    gives as prompt. values [T]: a list, tensor, array or column. largest: what is shaded most
    (default: the largest of them). Raises UsageError where the two differ in length.

    >>> show.tokens(run.tokens("import numpy"), [0, 0, 2.5, 1])
    """
    words = list(getattr(text, "texts", text))
    numbers_T = np.asarray(getattr(values, "detach", lambda: values)(), dtype=float).reshape(-1)
    if len(words) != len(numbers_T):
        raise UsageError(
            f"{len(words)} tokens and {len(numbers_T)} values: give one value for each token "
            "(`run.tokens(text)` says which there are)"
        )
    top = largest or float(np.abs(numbers_T).max(initial=0.0))
    row: Any = SimpleNamespace(texts=words, activations=numbers_T.tolist(), position=-1)
    body = contexts.shaded(row, 0, len(words), top)
    return Shown(html('<div class="whole">{}</div>', body), "".join(words))


def dashboard(run: Run | Path | str, features: Sequence[int]) -> Shown:
    """Features one below the other.

    >>> show.dashboard(run, run.top(5).feature)
    """
    opened = run if isinstance(run, Run) else open(run)
    views = [opened.feature(int(number)) for number in features]
    if not views:
        raise UsageError("no features to show: name one or more")
    return Shown(joined(view.body for view in views), f"{len(views)} features of {opened.name}")


def pareto(runs: Sequence[Run | Path | str], metric: str = "") -> Figure:
    """What runs cost in L0 and what they give, with 95% intervals: CE recovered, or FVU where one
    of them has no losses; metric: another one of their reports. Raises UsageError naming the runs
    that are not evaluated.

    >>> show.pareto(["runs/demo", "runs/demo-seed1"])
    """
    opened = [one if isinstance(one, Run) else open(one) for one in runs]
    reports = {run.name: read(run.folder.report) for run in opened}
    if missing := [str(run.folder.path) for run in opened if not reports[run.name]]:
        raise UsageError(f"not evaluated yet: `saelab eval {' '.join(missing)}`")
    losses = all("ce_recovered" in report for report in reports.values())
    metric = metric or ("ce_recovered" if losses else "fvu")
    if lacking := [name for name, report in reports.items() if metric not in report]:
        raise UsageError(f"the report of {lacking[0]} holds no {metric!r}")
    points = {name: (report["l0"], report[metric]) for name, report in reports.items()}
    label = rows.table()[metric].label if metric in rows.table() else metric
    return Figure(charts.pareto(points, label))
