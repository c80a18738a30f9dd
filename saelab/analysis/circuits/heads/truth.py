"""Exhaustive truth: what each head and each MLP does to the metric when it alone is ablated, on
prompts held out.

Shapes: P prompts, L layers, H heads; the last axis 3 holds value, low, high.
"""

import time
from typing import NamedTuple

import torch
from torch import Tensor

from saelab.analysis.circuits.heads import ablation
from saelab.analysis.circuits.heads.ablation import KINDS, Baseline, Kind, Setting
from saelab.statistics import Estimate

LEVELS = (0.02, 0.05, 0.1)  # of m(model) - m(empty)


class Effects(NamedTuple):
    """Effects of one kind of ablation as shares of m(model) - m(empty): heads [L, H, 3] and mlps
    [L, 3], float64.

    1 is as much as resampling all heads at once; negative where the component works against the
    task.
    """

    kind: Kind
    heads: Tensor
    mlps: Tensor


class Truth(NamedTuple):
    """What was measured. clean, corrupted, empty: mean metric, see `ablation.Baseline`. seconds:
    taken."""

    task: str
    metric: str
    n_prompts: int
    clean: Estimate
    corrupted: Estimate
    empty: Estimate
    effects: dict[Kind, Effects]
    seconds: float


class Members(NamedTuple):
    """Which components are in the circuit at one level, all bool."""

    level: float
    """share of m(model) - m(empty) from which a component is a member"""
    heads: Tensor
    """[L, H]"""
    mlps: Tensor
    """[L]"""
    undecided_heads: Tensor
    """[L, H] whose interval holds the level"""
    undecided_mlps: Tensor
    """[L] likewise"""


def _one(n_layers: int, layer: int) -> Tensor:
    return torch.arange(n_layers) == layer


def _share(base: Baseline, ablated_P: Tensor) -> Tensor:
    value, low, high, _ = ablation.faithfulness(base, ablated_P)
    return 1 - torch.tensor([value, high, low], dtype=torch.float64)


def effects(setting: Setting) -> Effects:
    """Ablate every head and every MLP, one at a time."""
    n_layers, n_heads = setting.model.cfg.n_layers, setting.model.cfg.n_heads
    heads_LH3 = torch.zeros(n_layers, n_heads, 3, dtype=torch.float64)
    for layer in range(n_layers):
        for head in range(n_heads):
            alone_LH = _one(n_layers, layer)[:, None] & _one(n_heads, head)
            heads_LH3[layer, head] = _share(setting.base, setting.run(alone_LH))
    mlps = [
        _share(setting.base, setting.run(mlps_L=_one(n_layers, layer))) for layer in range(n_layers)
    ]
    return Effects(setting.given.kind, heads_LH3, torch.stack(mlps))


def measure_all(setting: Setting, kinds: tuple[Kind, ...] = KINDS) -> Truth:
    """The effect of every head and MLP under each kind of ablation.

    The denominator is the same for all kinds: m(empty) has every head resampled from the corrupted
    twin and MLPs kept.
    """
    started = time.perf_counter()
    task = setting.task
    by_kind: dict[Kind, Effects] = {}
    for kind in kinds:
        given = setting.given
        if kind != given.kind:
            given = ablation.stand_ins(setting.model, task, kind)
        by_kind[kind] = effects(setting._replace(given=given))
    clean, corrupted, empty = (ablation.mean(values_P) for values_P in setting.base)
    return Truth(
        task.name,
        task.metric,
        len(task.clean),
        clean,
        corrupted,
        empty,
        by_kind,
        time.perf_counter() - started,
    )


def _clear(shares_X3: Tensor, level: float) -> tuple[Tensor, Tensor]:
    """Whether the interval lies beyond the level, on either side of 0; and whether it holds the
    level."""
    _, low_X, high_X = shares_X3.unbind(-1)
    inside_X = (low_X > level) | (high_X < -level)
    return inside_X, ~inside_X & ((high_X > level) | (low_X < -level))


def members(ablation_effects: Effects, level: float = 0.05) -> Members:
    """The components whose effect is at least `level` in size, its 95% interval clear of the level.

    Components that work against the task belong to the circuit, as negative name movers do (Wang et
    al. 2022).
    """
    (heads_LH, open_heads_LH), (mlps_L, open_mlps_L) = (
        _clear(ablation_effects.heads, level),
        _clear(ablation_effects.mlps, level),
    )
    return Members(level, heads_LH, mlps_L, open_heads_LH, open_mlps_L)
