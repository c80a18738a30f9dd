"""The report of a discovery method on a task: scores, agreement with a known circuit, faithfulness
of what it found.

Scores come from prompts of the training templates, truth and faithfulness from held-out ones.
Scoring is repeated on fresh prompts, which gives the intervals; the scores reported, and those that
the curves rank by, are the means.

Shapes: L layers, H heads, S repetitions.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from saelab import models
from saelab.analysis.circuits.heads import ablation, curves
from saelab.analysis.circuits.heads.ablation import Setting
from saelab.analysis.circuits.heads.attribution_patching import quadrature
from saelab.analysis.circuits.heads.known import Known, compared, measured, published
from saelab.analysis.circuits.heads.score import FEATURES, Options, Scores, method, score
from saelab.analysis.circuits.heads.stream import Edge
from saelab.errors import UsageError
from saelab.statistics import Estimate
from saelab.tasks.parts import Given, Parts, check_source, parts
from saelab.tasks.written import written

TruthKind = Literal["measured", "published", "none"]
TRUTHS: tuple[TruthKind, ...] = ("measured", "published", "none")
Progress = Callable[[str], None]


class Plan(NamedTuple):
    """What to do.

    task: a built-in task's name, a file of prompt pairs, or a `Task` made by hand.
    method: of METHODS, or FEATURES.
    prompts: per repetition (None: the method's default); at most, of prompts that are given.
    repeats: scorings on fresh prompts.
    held_out: prompts for truth and faithfulness; at most, of prompts that are given.
    truth: `measured` (every head of this model resampled by itself), `published` (of GPT-2 small
        and attn-only-4l) or `none`.
    seed: of every draw.
    """

    task: Given
    method: str
    prompts: int | None = None
    repeats: int = 3
    held_out: int = 100
    truth: TruthKind = "measured"
    seed: int = 0

    def check(self) -> None:
        """Raise UsageError, listing what there is, for an unknown task, method or truth."""
        if self.method != FEATURES:
            method(self.method)
        check_source(self.task)
        if self.truth not in TRUTHS:
            raise UsageError(f"unknown truth {self.truth!r}: there are {', '.join(TRUTHS)}")
        if self.repeats < 1:
            raise UsageError(
                f"repeats={self.repeats}: at least one is needed, and three for an interval"
            )
        if self.prompts is not None and self.prompts < 1:
            raise UsageError(f"prompts={self.prompts}: at least one is needed")
        if self.held_out < 2:
            raise UsageError(f"held_out={self.held_out}: at least two are needed for an interval")


def report(
    model: Any, plan: Plan, *, progress: Progress = lambda what: None, **options: Any
) -> dict[str, Any]:
    """Everything `saelab circuits` prints, as plain values; options are those of `score`.

    Raises UsageError for an unknown task, method or truth, and, with the numbers, for a task that
    this model does not do.
    """
    plan.check()
    n = plan.prompts or method(plan.method).prompts
    drawn = parts(plan.task, model, n, plan.held_out, plan.repeats, plan.seed)
    held_out = ablation.setting(model, drawn.held_out)
    progress(f"scoring by {plan.method}")
    each = _scored(model, plan, drawn, options)
    scores = mean(each)
    progress("measuring the truth" if plan.truth == "measured" else "comparing")
    true = known(held_out, plan)
    progress("faithfulness")
    fields, intervals = compared([one.heads for one in each], true, plan.seed)
    fields |= _quadrature(model, plan, drawn, options)
    means = {name: ablation.mean(values_P) for name, values_P in held_out.base._asdict().items()}
    return {
        **heading(plan, held_out, means, drawn),
        "heads": head_rows(scores.heads),
        "mlps": None if scores.mlps is None else scores.mlps.tolist(),
        "edges": [edge._asdict() for edge in scores.edges or []],
        **fields,
        **_curves(held_out, scores.heads),
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
            "examples": written(held_out, setting.model.tokenizer),
        },
    }


def metric_intervals(means: Means) -> dict[str, list[float | None]]:
    """The intervals of the metric's means."""
    return {f"metric_{name}": [metric.low, metric.high] for name, metric in means.items()}


def _scored(model: Any, plan: Plan, drawn: Parts, options: dict[str, Any]) -> list[Scores]:
    """The scores of each repetition."""
    seeds = range(plan.seed, plan.seed + plan.repeats)
    return [
        score(model, some, plan.method, **{"seed": seed, **options})
        for seed, some in zip(seeds, drawn.scoring, strict=True)
    ]


def mean(repeated: Sequence[Scores]) -> Scores:
    """Scores averaged over repetitions; seconds of one of them."""
    first = repeated[0]
    heads_LH = torch.stack([one.heads for one in repeated]).mean(0)
    mlps_L = (
        None
        if first.mlps is None
        else torch.stack([one.mlps for one in repeated if one.mlps is not None]).mean(0)
    )
    edges = None
    if first.edges is not None:
        sums: dict[tuple[str, str], float] = {}
        for edge in [edge for one in repeated for edge in one.edges or []]:
            sums[edge[:2]] = sums.get(edge[:2], 0.0) + edge.score / len(repeated)
        edges = sorted(
            (Edge(*ends, value) for ends, value in sums.items()), key=lambda edge: -abs(edge.score)
        )
    return Scores(
        first.method, heads_LH, mlps_L, edges, sum(one.seconds for one in repeated) / len(repeated)
    )


def head_rows(scores_LH: Tensor) -> list[dict[str, Any]]:
    """Heads as plain values, largest |score| first."""
    table = scores_LH.tolist()
    rows = [
        {"layer": layer, "head": head, "score": value}
        for layer, row in enumerate(table)
        for head, value in enumerate(row)
    ]
    return sorted(rows, key=lambda row: -abs(row["score"]))


def known(held_out: Setting, plan: Plan) -> Known | None:
    """The circuit that the plan compares with, if any."""
    # Exact patching is the truth: nothing is left to compare it with.
    if plan.truth == "none" or plan.method == "patching":
        return None
    if plan.truth == "measured":
        return measured(held_out)
    return published(held_out.model, held_out.task.name)


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
