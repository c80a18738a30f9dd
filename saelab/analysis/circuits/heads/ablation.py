"""The model with some of its heads and MLPs replaced: by their twin's output, by a mean, by zero.

A head is what it sends on before the output projection (`attn.hook_z`), an MLP its output. Replaced
everywhere in the prompt; everything downstream runs on. Shapes: P prompts, T positions, L layers, H
heads.
"""

from functools import partial
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from saelab import models
from saelab.errors import UsageError
from saelab.models import running
from saelab.statistics import Estimate, over_documents, weights
from saelab.tasks import Task, check_twins, measure

Kind = Literal["resample", "mean", "zero"]
KINDS: tuple[Kind, ...] = ("resample", "mean", "zero")
TOKENS = 2048  # in one forward pass


class StandIns(NamedTuple):
    """What takes the place of each component, by its hook's name: heads [P, T, H, width], MLPs [P,
    T, D]. See `stand_ins`."""

    kind: Kind
    heads: dict[str, Tensor]
    mlps: dict[str, Tensor]


def batches(task: Task) -> list[slice]:
    """Rows of the task that go through the model at once."""
    n, size = len(task.clean), max(1, TOKENS // task.clean.shape[1])
    return [slice(first, min(first + size, n)) for first in range(0, n, size)]


def hooks(model: Any, point: str) -> list[str]:
    """The canonical name of one hook point, such as `attn.hook_z` or `hook_mlp_out`, in every
    layer."""
    return [
        models.resolve_hook(model, f"blocks.{layer}.{point}") for layer in range(model.cfg.n_layers)
    ]


def _template_means(acts_PTX: Tensor, templates: list[str] | None) -> Tensor:
    """Each prompt's activations replaced by their mean over all prompts of its template, position
    by position."""
    keys = templates or [""] * len(acts_PTX)
    means = acts_PTX.clone()
    for key in set(keys):
        same_P = torch.tensor([k == key for k in keys])
        means[same_P] = acts_PTX[same_P].mean(0)
    return means


def stand_ins(model: Any, task: Task, kind: Kind = "resample") -> StandIns:
    """The replacements of every head and MLP. Raises UsageError for an unknown kind.

    resample: the output in the prompt's own corrupted twin (interchange; Geiger et al. 2021). mean:
    the mean over the corrupted twins of the same template, at each position (Wang et al. 2022,
    section 2.2). zero: nothing.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown ablation {kind!r}: kinds are {', '.join(KINDS)}")
    heads, mlps = hooks(model, "attn.hook_z"), hooks(model, "hook_mlp_out")
    parts = [running.read(model, task.corrupted[rows], [*heads, *mlps]) for rows in batches(task)]
    acts_by_name = {name: torch.cat([part[name] for part in parts]) for name in (*heads, *mlps)}
    if kind == "zero":
        acts_by_name = {name: torch.zeros_like(acts) for name, acts in acts_by_name.items()}
    if kind == "mean":
        acts_by_name = {
            name: _template_means(acts, task.labels.get("template"))
            for name, acts in acts_by_name.items()
        }
    return StandIns(
        kind,
        {name: acts_by_name[name] for name in heads},
        {name: acts_by_name[name] for name in mlps},
    )


def _replace(acts: Tensor, given: Tensor, which: Tensor | None) -> Tensor:
    if which is None:
        return given
    changed = acts.clone()
    changed[:, :, which] = given[:, :, which]
    return changed


def _edits(given: StandIns, rows: slice, heads_LH: Tensor | None, mlps_L: Tensor | None) -> list:
    edits: list = []
    if heads_LH is not None:
        for (name, acts), which_H in zip(given.heads.items(), heads_LH, strict=True):
            edits += (
                [(name, partial(_replace, given=acts[rows], which=which_H))]
                if which_H.any()
                else []
            )
    if mlps_L is not None:
        for (name, acts), gone in zip(given.mlps.items(), mlps_L, strict=True):
            edits += [(name, partial(_replace, given=acts[rows], which=None))] if gone else []
    return edits


@torch.no_grad()
def run(
    model: Any,
    task: Task,
    given: StandIns,
    heads_LH: Tensor | None = None,
    mlps_L: Tensor | None = None,
) -> Tensor:
    """The metric of each clean prompt [P] with the heads and MLPs marked True replaced by their
    stand-ins.

    Metric of a circuit whose heads are keep_LH, MLPs kept: `run(model, task, given, ~keep_LH)`.
    None replaces nothing.
    """
    parts = []
    for rows in batches(task):
        edits = _edits(given, rows, heads_LH, mlps_L)
        logits_PV = running.logits(model, task.clean[rows], edits, last=True)
        parts.append(measure(task.part(rows), logits_PV))
    return torch.cat(parts)


class Baseline(NamedTuple):
    """The metric of each prompt [P]: of the whole model on clean and on corrupted prompts, and of
    the model without its heads.

    empty: every head resampled from the corrupted twin, MLPs kept. Equal to `corrupted` where the
    twins end in the same token, because then nothing of the clean prompt reaches the last position.
    """

    clean: Tensor
    corrupted: Tensor
    empty: Tensor


def mean(values_P: Tensor, seed: int = 0) -> Estimate:
    """The mean over prompts with its 95% interval over resampled prompts."""
    sums_P1 = values_P.double().cpu().numpy()[:, None] / len(values_P)
    return over_documents(sums_P1, lambda sums: sums[..., 0], weights(len(values_P), seed))


class Setting(NamedTuple):
    """A task set up on a model: what its circuits are measured in.

    model: what `models.load` returns.
    task: prompts with twins.
    given: what takes the place of what a circuit leaves out.
    base: what faithfulness is normalised by.
    """

    model: Any
    task: Task
    given: StandIns
    base: Baseline

    def run(self, heads_LH: Tensor | None = None, mlps_L: Tensor | None = None) -> Tensor:
        """The metric [P] with these heads and MLPs replaced; see `run`."""
        return run(self.model, self.task, self.given, heads_LH, mlps_L)


def setting(model: Any, task: Task) -> Setting:
    """The task set up on the model, with the outputs on corrupted twins to stand in.

    Raises UsageError for prompts without twins and, with the numbers, for a task that this model
    does not do: more than half of the prompts must have a positive metric, and the metric must
    fall when the heads are resampled, each beyond its 95% interval.

    >>> held_out = setting(model, task("ioi", model, split="held-out"))
    >>> curve(held_out, score(model, task("ioi", model)).heads)
    """
    check_twins(task)
    given = stand_ins(model, task)
    return Setting(model, task, given, _baseline(model, task, given))


def _baseline(model: Any, task: Task, given: StandIns) -> Baseline:
    everything_LH = torch.ones(model.cfg.n_layers, model.cfg.n_heads, dtype=torch.bool)
    corrupted = run(model, task._replace(clean=task.corrupted), given)
    baseline = Baseline(run(model, task, given), corrupted, run(model, task, given, everything_LH))
    share, fall = mean((baseline.clean > 0).float()), mean(baseline.clean - baseline.empty)
    if not (share.above(0.5) and fall.above(0)):
        raise UsageError(
            f"this model does not do the task {task.name}: its {task.metric.replace('_', ' ')} is "
            f"{baseline.clean.mean():.3f} (above 0 on {share.value:.0%} of {len(baseline.clean)} "
            f"prompts, 95% interval {share.low:.0%} to {share.high:.0%}) and "
            f"{baseline.empty.mean():.3f} with every head resampled (difference {fall.low:.3f} to "
            f"{fall.high:.3f}), so nothing can be normalised by it; choose a task it does, or a "
            "model that does this one"
        )
    return baseline


def faithfulness(base: Baseline, circuit_P: Tensor, seed: int = 0) -> Estimate:
    """(m(circuit) - m(empty)) / (m(model) - m(empty)), ratio of means, 95%
    interval over prompts.

    Wang et al. 2022 and Marks et al. 2024, section 3.3; above 1 where the circuit leaves out what
    works against the task.
    """
    sums_P2 = (
        torch.stack([circuit_P - base.empty, base.clean - base.empty], 1).double().cpu().numpy()
    )
    weights_RP = weights(len(sums_P2), seed)
    with np.errstate(divide="ignore", invalid="ignore"):
        return over_documents(sums_P2, lambda sums: sums[..., 0] / sums[..., 1], weights_RP)
