"""The report of a discovery method on a task: scores, agreement with a known circuit, faithfulness
of what it found.

Scores come from prompts of the training templates, truth and faithfulness from held-out ones.
Scoring is repeated on fresh prompts, which gives the intervals; the scores reported, and those that
the curves rank by, are the means.

Shapes: L layers, H heads, S repetitions.
"""

from collections.abc import Callable, Sequence
from math import isnan
from typing import Any

import torch
from torch import Tensor

from saelab import models
from saelab.analysis.circuits.heads import ablation, curves
from saelab.analysis.circuits.heads.ablation import Setting
from saelab.analysis.circuits.heads.against import against, published
from saelab.analysis.circuits.heads.attribution_patching import quadrature
from saelab.analysis.circuits.heads.known import Known, compared, measured
from saelab.analysis.circuits.heads.links import within
from saelab.analysis.circuits.heads.plan import Plan
from saelab.analysis.circuits.heads.score import (
    Options,
    Scores,
    method,
    score,
)
from saelab.analysis.circuits.heads.stream import Edge
from saelab.statistics import Estimate
from saelab.tasks.parts import Parts, parts
from saelab.tasks.written import written

Progress = Callable[[str], None]


def report(
    model: Any, plan: Plan, *, progress: Progress = lambda what: None, **options: Any
) -> dict[str, Any]:
    """Everything `saelab circuits` prints, as plain values; options are those of `score`.

    Raises UsageError for an unknown task, method or truth, and, with the numbers, for a task that
    this model does not do.
    """
    plan.check()
    paper = None if plan.published is None else published(model, plan.published)
    n = plan.n or method(plan.method).prompts
    drawn = parts(plan.task, model, n, plan.held_out, plan.repeats, plan.seed)
    held_out = ablation.setting(model, drawn.held_out)
    progress(f"scoring by {plan.method}")
    each = _scored(model, plan, drawn, options)
    scores = mean(each)
    progress("measuring the truth" if plan.truth == "measured" else "comparing")
    true = known(held_out, plan)
    progress("faithfulness")
    # What was not measured ranks last.
    ranked = [one.heads.nan_to_num(0) for one in each]
    fields, intervals = compared(ranked, true, plan.seed)
    fields |= _quadrature(model, plan, drawn, options)
    means = {name: ablation.mean(values_P) for name, values_P in held_out.base._asdict().items()}
    return {
        **heading(plan, held_out, means, drawn),
        "heads": head_rows(scores.heads),
        "mlps": None if scores.mlps is None else _plain(scores.mlps),
        "edges": [edge._asdict() for edge in scores.edges or []],
        **fields,
        **_curves(held_out, scores.heads.nan_to_num(0)),
        **_measured(plan, scores),
        **({} if paper is None else {"published": against(each, paper, plan.seed)}),
        "intervals": intervals | metric_intervals(means),
        "seconds": scores.seconds,
    }


def _quadrature(model: Any, plan: Plan, drawn: Parts, options: dict[str, Any]) -> dict[str, Any]:
    """What the points of EAP-IG miss of their integral, and what four times as many do."""
    if plan.method != "eap-ig":
        return {}
    told = Options(**options)
    numbers = (told.n_steps, 4 * told.n_steps)
    rows = [quadrature(model, drawn.scoring[0], told.points, n)._asdict() for n in numbers]
    return {"points": told.points, "quadrature": rows}


Means = dict[str, Estimate]  # clean, corrupted, empty: the mean metric


def heading(plan: Plan, setting: Setting, means: Means, drawn: Parts) -> dict[str, Any]:
    """The fields that say what was measured, of heads and of features alike."""
    scoring, held_out = drawn.scoring, drawn.held_out
    n_prompts = {"scoring": len(scoring[0].clean), "repeats": len(scoring)}
    return {
        "task": held_out.name,
        "method": plan.method,
        "model": models.name_of(setting.model),
        "metric": held_out.metric,
        **{f"metric_{name}": metric.value for name, metric in means.items()},
        "prompts": {
            **n_prompts,
            "held_out": len(held_out.clean),
            **({"left_out": drawn.left_out} if drawn.left_out else {}),
            "examples": written(held_out, setting.model.tokenizer),
        },
    }


def metric_intervals(means: Means) -> dict[str, list[float | None]]:
    """The intervals of the metric's means."""
    return {f"metric_{name}": [metric.low, metric.high] for name, metric in means.items()}


def _scored(model: Any, plan: Plan, drawn: Parts, options: dict[str, Any]) -> list[Scores]:
    """The scores of each repetition, each with its share of the time."""
    each: list[Scores] = []
    for number, some in enumerate(drawn.scoring):
        own: dict[str, Any] = {"seed": plan.seed + number, **options}
        if plan.seconds is not None:
            own["stop"] = within(plan.seconds / plan.repeats)
        each.append(score(model, some, plan.method, **own))
    return each


def mean(repeated: Sequence[Scores]) -> Scores:
    """Scores averaged over the repetitions that measured them; seconds of one of them."""
    first = repeated[0]
    heads_LH = torch.stack([one.heads for one in repeated]).nanmean(0)
    mlps = [one.mlps for one in repeated if one.mlps is not None]
    seconds = sum(one.seconds for one in repeated) / len(repeated)
    return Scores(
        first.method,
        heads_LH,
        torch.stack(mlps).nanmean(0) if mlps else None,
        None if first.edges is None else _mean_edges(repeated),
        seconds,
        first.n_edges,
    )


def _mean_edges(repeated: Sequence[Scores]) -> list[Edge]:
    values: dict[tuple[str, str], list[float]] = {}
    for edge in [edge for one in repeated for edge in one.edges or []]:
        values.setdefault(edge[:2], []).append(edge.score)
    edges = [Edge(*ends, sum(found) / len(found)) for ends, found in values.items()]
    return sorted(edges, key=lambda edge: -abs(edge.score))


def _measured(plan: Plan, scores: Scores) -> dict[str, Any]:
    """What a budget let be measured of all that there is; nothing without a budget."""
    if plan.seconds is None:
        return {}
    parts = {"heads": scores.heads, "mlps": scores.mlps}
    share = {
        name: {"measured": int((~values.isnan()).sum()), "of": values.numel()}
        for name, values in parts.items()
        if values is not None
    }
    if scores.edges is not None:
        share["edges"] = {"measured": len(scores.edges), "of": scores.n_edges}
    return {"budget": {"seconds": plan.seconds, **share}}


def _plain(values: Tensor) -> list[float | None]:
    return [None if isnan(value) else value for value in values.tolist()]


def head_rows(scores_LH: Tensor) -> list[dict[str, Any]]:
    """Heads as plain values, largest |score| first, those without a score last."""
    table = scores_LH.tolist()
    rows = [
        {"layer": layer, "head": head, "score": None if isnan(value) else value}
        for layer, row in enumerate(table)
        for head, value in enumerate(row)
    ]
    return sorted(rows, key=lambda row: -(-1 if row["score"] is None else abs(row["score"])))


def known(held_out: Setting, plan: Plan) -> Known | None:
    """The circuit that the plan compares with, if any."""
    # Exact patching is the truth: nothing is left to compare it with.
    if plan.truth == "none" or plan.method == "patching":
        return None
    return measured(held_out)


def _curves(held_out: Setting, scores_LH: Tensor) -> dict[str, Any]:
    by_size = curves.curve(held_out, scores_LH)
    # Where no score is negative both orders are the same.
    signed = by_size
    if not bool((scores_LH >= 0).all()):
        signed = curves.curve(held_out, scores_LH, signed=True)
    cpr, cmd = curves.cpr(signed), curves.cmd(by_size)
    return {
        "cpr": cpr.linear,
        "cmd": cmd.linear,
        "cpr_log": cpr.log,
        "cmd_log": cmd.log,
        "faithfulness": [point._asdict() for point in by_size],
        "faithfulness_signed": [point._asdict() for point in signed],
    }
