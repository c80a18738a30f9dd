"""Compare SAEs with supervised dictionaries on a task: approximation, sparse control,
interpretability.

    saelab supervise runs/a --task ioi
    saelab supervise runs/a runs/b --prompts kings.csv --changes 3
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro
from tyro.conf import UseAppendAction

from saelab.errors import UsageError
from saelab.ranges import Count, Several

from ..browser.supervised import SCORES
from . import prompt_source
from .common import OfRun, Runs, cell, document, finished, keep, show
from .progress import bar

if TYPE_CHECKING:
    from saelab.opening import Opened


@dataclass(frozen=True)
class Args(OfRun):
    """Options of `saelab supervise`."""

    runs: Runs = ()
    """run folders"""
    task: prompt_source.Task = None
    """ioi (the default), greater-than, docstring"""
    prompts: prompt_source.Prompts = None
    """file of labelled prompts instead (CSV, JSON, JSON lines: "clean", "answers", "labels",
    optionally "wrong", "positions", "group" of counterfactuals), half of which are fitted on"""
    position: Annotated[UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME")] = ()
    """position to edit; may be repeated (default: all that the task names)"""
    n: Several = 2000
    """prompts of a task to fit on"""
    tests: Several = 200
    """prompts of a task to test on, each with a counterfactual per attribute"""
    changes: Count = 6
    """features an edit may change at each position"""
    controls: bool = False
    """also hold the run's twin with a frozen decoder to the task, trained now, as long as the run
    was and on its cache, unless the run holds it; the control that is always there has an encoder
    fitted to the task's prompts alone"""


def run(args: Args) -> int:
    """Evaluate each run, write supervise-TASK.json into it, print a table per run."""
    from saelab import models, opening
    from saelab.tasks import files

    folders = finished("supervise", args.runs)
    source = prompt_source.chosen(args.task, args.prompts)
    fit, test, metric = _rows(args, source)
    task, results = prompt_source.name(source), []
    options: dict[str, Any] = {"device": args.place, "dtype": args.model_dtype or "float32"}
    needs = ("model", "cache") if args.controls else ("model",)
    opened = opening.open_all(folders, args.model, needs=needs, **options)
    if transcoders := [str(one.folder.path) for one in opened if one.sae.transcoder]:
        raise UsageError(
            f"{transcoders[0]} is a transcoder, and dictionaries of one activation are compared "
            "here: name an SAE"
        )
    for named, one in zip(folders, opened, strict=True):
        folder, sae, _, model = one
        if args.prompts:
            files.check(args.prompts, model)
        fields = _compare(args, task, one, fit, test, metric)
        facts = {"run": str(named), "model": models.name_of(model), "hook": sae.origin.hook}
        facts["sae"] = folder.sae_digest()
        results.append(document("supervise", args.seed, task=task, **facts, **fields))
        keep(folder.supervised(task), results[-1])
    whole = results[0] if len(results) == 1 else document("supervise", args.seed, runs=results)
    show(whole, args.json, "\n\n".join(table(result) for result in results))
    return 0


def _rows(args: Args, source: str | Path) -> tuple[list, list, Any]:
    """Rows to fit on, rows to test on, and the metric. Raises UsageError for an unknown task."""
    from saelab.evaluation import supervised
    from saelab.tasks import files

    if isinstance(source, Path):
        words = files.read_words(source, ("answers", "labels"))
        # Counterfactuals are other prompts of the group: twins are for circuits.
        alone = [drawn._replace(corrupted="") for drawn in words.prompts]
        return *supervised.split(alone, args.seed), words.metric
    if source not in supervised.TASKS:
        known = ", ".join(supervised.TASKS)
        raise UsageError(
            f"no task {source!r} has labels; there are {known}, or give labelled prompts of your "
            "own with --prompts FILE"
        )
    tests = supervised.rows(source, args.tests, 2 * args.seed + 1, twins=True)
    metric = supervised.TASKS[source].metric
    return supervised.rows(source, args.n, 2 * args.seed), tests, metric


def _compare(args: Args, name: str, opened: "Opened", fit: list, test: list, metric: Any) -> dict:
    """The document's fields for one SAE."""
    from saelab import tasks
    from saelab.evaluation import supervised

    from .eval_controls import frozen_decoder

    _, sae, _, model = opened
    fit_prompts, test_prompts = (tasks.build(name, model, rows, metric) for rows in (fit, test))
    site = supervised.visit(model, sae.origin.hook, fit_prompts, test_prompts, list(args.position))
    trained = frozen_decoder(opened, args.seed, args.place) if args.controls else None
    dictionaries = supervised.with_controls(site, sae, args.seed, trained)
    with bar(len(dictionaries), "", "dictionaries") as shown:
        return supervised.evaluate(
            site,
            dictionaries,
            seed=args.seed,
            headline=args.changes,
            progress=lambda _: shown.to(shown.n + 1),
        )


def table(result: dict) -> str:
    """One run's scores for people."""
    names = list(result["sufficiency"])
    head = (
        f"{result['run']}: {result['task']} at {result['hook']}, positions "
        f"{', '.join(result['positions'])}"
    )
    metric = (
        f"{result['metric'].replace('_', ' ')} {result['metric_clean']:.3f} clean, "
        f"{result['metric_mean']:.3f} mean-ablated"
    )
    lines = [
        f"{head}; {metric}",
        "",
        f"{'':17}" + "".join(f"{label:>22}" for label, _ in SCORES.values()),
    ]
    for name in names:
        lines.append(
            f"{name:17}" + "".join(f"{cell(result[score][name], '.3f'):>22}" for score in SCORES)
        )
    nulls = (result[score]["sae"]["null"] for score in SCORES)
    lines += [
        f"{'null':17}"
        + "".join(f"{'-' if null is None else format(null, '.3f'):>22}" for null in nulls),
        "",
    ]
    counts = sorted({row["changes"] for row in result["edits"]})
    lines.append(f"{'edit agreement by features changed':36}" + "".join(f"{k:>8}" for k in counts))
    for name in names:
        values = [
            row["edit_agreement"]["value"] for row in result["edits"] if row["dictionary"] == name
        ]
        lines.append(f"{name:36}" + "".join(f"{value:8.3f}" for value in values))
    return "\n".join(lines)
